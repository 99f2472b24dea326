// mysql2 for Node: text, prepared statements, a pool, transactions. Its one argument is the settings as JSON.
const assert = require('assert');
const fs = require('fs');
const mysql = require('mysql2/promise');

const settings = JSON.parse(process.argv[2]);
const options = {
  host: settings.host, port: settings.port, user: settings.user, password: settings.password, database: 'shop',
  ssl: { ca: fs.readFileSync(settings.ca), rejectUnauthorized: true },
};

async function main() {
  const connection = await mysql.createConnection(options);
  await connection.query('DROP TABLE IF EXISTS node_notes');
  await connection.query('CREATE TABLE node_notes (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(90), n BIGINT)');
  const [made] = await connection.query('INSERT INTO node_notes (v, n) VALUES ?', [[['ü😀', 1], [null, 2]]]);
  assert.deepStrictEqual([made.affectedRows, made.insertId], [2, 1]);
  const [text] = await connection.query('SELECT v, n FROM node_notes WHERE n > ? ORDER BY n', [0]);
  assert.deepStrictEqual(text.map((row) => [row.v, row.n]), [['ü😀', 1], [null, 2]]);

  await connection.execute('INSERT INTO node_notes (v, n) VALUES (?, ?)', ["it's", 3]);
  for (const wanted of [1, 2, 3]) {
    const [rows] = await connection.execute('SELECT n FROM node_notes WHERE n = ?', [wanted]);
    assert.deepStrictEqual(rows.map((row) => row.n), [wanted]);
  }
  // Tables that have moved to shards: one shard, both shards, a change.
  for (const method of ['query', 'execute']) {
    const [one] = await connection[method]('SELECT name, price FROM items WHERE id = ?', [4]);
    assert.deepStrictEqual(one.map((row) => [row.name, row.price]), [['Stück 4', '1.00']]);
    const [many] = await connection[method]('SELECT id FROM items WHERE id <= ? ORDER BY id DESC', [5]);
    assert.deepStrictEqual(many.map((row) => row.id), [5, 4, 3, 2, 1]);
    await connection.beginTransaction();
    const [changed] = await connection[method]('UPDATE items SET price = price + ? WHERE id IN (?, ?)', [1, 4, 5]);
    assert.strictEqual(changed.affectedRows, 2);
    await connection.rollback();
  }
  await assert.rejects(connection.execute('SELECT * FROM nothing_here'), { errno: 1146, sqlState: '42S02' });
  await assert.rejects(connection.query('SELEC 1'), { errno: 1064 });
  await connection.changeUser({ database: 'shop' });
  await connection.ping();
  await connection.end();

  const pool = mysql.createPool({ ...options, connectionLimit: 3 });
  await Promise.all([...Array(12).keys()].map(async (number) => {
    const own = await pool.getConnection();
    try {
      await own.beginTransaction();
      await own.execute('INSERT INTO node_notes (n) VALUES (?)', [100 + number]);
      const [seen] = await own.execute('SELECT COUNT(*) AS c FROM node_notes WHERE n = ?', [100 + number]);
      assert.strictEqual(seen[0].c, 1);
      await (number % 2 ? own.commit() : own.rollback());
    } finally {
      own.release();
    }
  }));
  const [kept] = await pool.query('SELECT COUNT(*) AS c FROM node_notes WHERE n >= 100');
  assert.strictEqual(kept[0].c, 6);
  await pool.query('DROP TABLE node_notes');
  await pool.end();
  console.log('done');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
