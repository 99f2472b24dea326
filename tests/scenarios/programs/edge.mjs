// JavaScript's clients of the data plane over HTTP, each unmodified. Prints "done" where all is as expected.
// Argument: {"url": …, "host": …, "username": …, "password": …}; NODE_EXTRA_CA_CERTS names the gateway's CA.
import assert from 'node:assert/strict'
import { Client, DatabaseError, connect } from '@planetscale/database'
import { PrismaPlanetScale } from '@prisma/adapter-planetscale'
import { asc, eq, sql } from 'drizzle-orm'
import { int, json, mysqlTable, varchar } from 'drizzle-orm/mysql-core'
import { drizzle } from 'drizzle-orm/planetscale-serverless'
import { Kysely } from 'kysely'
import { PlanetScaleDialect } from 'kysely-planetscale'

const { url, host, username, password } = JSON.parse(process.argv[2])

async function database() {
  const db = connect({ url })
  await db.execute('DROP TABLE IF EXISTS js_people')
  await db.execute(
    'CREATE TABLE js_people (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40), born DATE, big BIGINT,' +
      ' price DECIMAL(8,2), ratio DOUBLE, data JSON, picture BLOB, kind ENUM("a","b"))')
  const made = await db.execute(
    'INSERT INTO js_people (name, born, big, price, ratio, data, picture, kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?), (:n, NULL, NULL, NULL, NULL, NULL, NULL, NULL)'
      .replace(', (:n, NULL, NULL, NULL, NULL, NULL, NULL, NULL)', ''),
    ["it's \\ ü😀", '2024-02-29', '9007199254740993', '12.50', 0.25, JSON.stringify({ a: [1, 'x'] }), 'bytes', 'b'])
  assert.equal(made.insertId, '1')
  assert.equal(made.rowsAffected, 1)
  const { rows, fields, time } = await db.execute('SELECT * FROM js_people WHERE name LIKE :name', { name: "it's%" })
  assert.equal(rows.length, 1)
  const row = rows[0]
  assert.equal(row.id, 1)
  assert.equal(row.name, "it's \\ ü😀")
  assert.equal(row.born, '2024-02-29')
  assert.equal(row.big, '9007199254740993')
  assert.equal(row.price, '12.50')
  assert.equal(row.ratio, 0.25)
  // A JSON column is LONGTEXT on MariaDB.
  assert.deepEqual(typeof row.data === 'string' ? JSON.parse(row.data) : row.data, { a: [1, 'x'] })
  assert.deepEqual(Buffer.from(row.picture).toString(), 'bytes')
  assert.equal(row.kind, 'b')
  assert.equal(fields[0].type, 'UINT32')
  assert.equal(fields[0].orgTable, 'js_people')
  assert.ok(time > 0)
  const found = await db.execute('UPDATE js_people SET name = name')
  assert.equal(found.rowsAffected, 1)
  await assert.rejects(db.execute('SELEC 1'), (error) => {
    assert.ok(error instanceof DatabaseError)
    assert.equal(error.status, 400)
    assert.match(error.message, /\(errno 1064\) \(sqlstate 42000\)/)
    return true
  })
  const results = await Promise.all([1, 2, 3, 4, 5].map((n) => db.execute('SELECT ? AS n', [n])))
  assert.deepEqual(results.map((one) => Number(one.rows[0].n)), [1, 2, 3, 4, 5])
  await db.refresh()
  const total = await db.transaction(async (tx) => {
    await tx.execute('INSERT INTO js_people (name) VALUES (?)', ['inside'])
    const seen = await tx.execute('SELECT COUNT(*) AS n FROM js_people')
    const outside = await connect({ url }).execute('SELECT COUNT(*) AS n FROM js_people')
    assert.equal(outside.rows[0].n, '1')
    await Promise.all([1, 2, 3].map((n) => tx.execute('INSERT INTO js_people (name) VALUES (?)', [`p${n}`])))
    return seen.rows[0].n
  })
  assert.equal(total, '2')
  await assert.rejects(
    db.transaction(async (tx) => {
      await tx.execute('DELETE FROM js_people')
      throw new Error('undo')
    }), /undo/)
  assert.equal((await db.execute('SELECT COUNT(*) AS n FROM js_people')).rows[0].n, '5')
  const secure = new Client({ host, username, password })
  assert.equal((await secure.execute('SELECT 1 AS one')).rows[0].one == 1, true)
  const wrong = connect({ host, username, password: 'wrong' })
  await assert.rejects(wrong.execute('SELECT 1'), (error) => {
    assert.ok(error instanceof DatabaseError)
    assert.equal(error.status, 401)
    assert.match(error.message, /Access denied/)
    return true
  })
}

async function withDrizzle() {
  const people = mysqlTable('js_drizzle', {
    id: int('id').primaryKey().autoincrement(),
    name: varchar('name', { length: 40 }),
    data: json('data'),
  })
  const db = drizzle(new Client({ url }))
  await db.execute(sql`DROP TABLE IF EXISTS js_drizzle`)
  await db.execute(sql`CREATE TABLE js_drizzle (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40), data JSON)`)
  await db.insert(people).values([{ name: 'Ada', data: { a: 1 } }, { name: 'Grace', data: null }])
  const rows = await db.select({ id: people.id, name: people.name }).from(people).orderBy(asc(people.id))
  assert.deepEqual(rows, [{ id: 1, name: 'Ada' }, { id: 2, name: 'Grace' }])
  await db.transaction(async (tx) => {
    await tx.update(people).set({ name: 'Ada L.' }).where(eq(people.id, 1))
    await tx.insert(people).values({ name: 'Edsger' })
  })
  await assert.rejects(
    db.transaction(async (tx) => {
      await tx.delete(people)
      tx.rollback()
    }))
  const names = await db.select({ name: people.name }).from(people).orderBy(asc(people.id))
  assert.deepEqual(names.map((one) => one.name), ['Ada L.', 'Grace', 'Edsger'])
}

async function withKysely() {
  const db = new Kysely({ dialect: new PlanetScaleDialect({ url }) })
  await db.schema.dropTable('js_kysely').ifExists().execute()
  await db.schema.createTable('js_kysely')
    .addColumn('id', 'integer', (column) => column.primaryKey().autoIncrement())
    .addColumn('name', 'varchar(40)').execute()
  const made = await db.insertInto('js_kysely').values({ name: 'Ada' }).executeTakeFirst()
  assert.equal(made.insertId, 1n)
  await db.transaction().execute(async (trx) => {
    await trx.insertInto('js_kysely').values({ name: 'Grace' }).execute()
    await trx.updateTable('js_kysely').set({ name: 'Ada L.' }).where('id', '=', 1).execute()
  })
  await assert.rejects(
    db.transaction().execute(async (trx) => {
      await trx.deleteFrom('js_kysely').execute()
      throw new Error('undo')
    }), /undo/)
  const rows = await db.selectFrom('js_kysely').selectAll().orderBy('id').execute()
  assert.deepEqual(rows, [{ id: 1, name: 'Ada L.' }, { id: 2, name: 'Grace' }])
  await db.destroy()
}

async function withPrisma() {
  const adapter = await new PrismaPlanetScale({ url }).connect()
  const run = (on, sql, args = [], argTypes = []) => on.executeRaw({ sql, args, argTypes })
  await run(adapter, 'DROP TABLE IF EXISTS js_prisma')
  await run(adapter, 'CREATE TABLE js_prisma (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) UNIQUE)')
  assert.equal(await run(adapter, 'INSERT INTO js_prisma (name) VALUES (?)', ['Ada'], [{ scalarType: 'string', arity: 'scalar' }]), 1)
  const tx = await adapter.startTransaction()
  await run(tx, "INSERT INTO js_prisma (name) VALUES ('Grace')")
  const inside = await tx.queryRaw({ sql: 'SELECT id, name FROM js_prisma ORDER BY id', args: [], argTypes: [] })
  assert.deepEqual(inside.columnNames, ['id', 'name'])
  assert.equal(inside.rows.length, 2)
  await tx.rollback()
  const again = await adapter.startTransaction('SERIALIZABLE')
  await run(again, "INSERT INTO js_prisma (name) VALUES ('Edsger')")
  await again.commit()
  const rows = await adapter.queryRaw({ sql: 'SELECT name FROM js_prisma ORDER BY id', args: [], argTypes: [] })
  assert.deepEqual(rows.rows.map((row) => row[0]), ['Ada', 'Edsger'])
  await assert.rejects(run(adapter, "INSERT INTO js_prisma (name) VALUES ('Ada')"), (error) => {
    assert.equal(error.cause.kind, 'UniqueConstraintViolation')
    return true
  })
}

await database()
await withDrizzle()
await withKysely()
await withPrisma()
console.log('done')
