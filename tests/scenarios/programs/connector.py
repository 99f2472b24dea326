"""A program of its own, because the C extension must be loaded before anything else: text and prepared
statements, several results, transactions and sessions of MySQL Connector/Python.

Its one argument is the connection's settings as JSON. It prints ``done``.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

settings = json.loads(sys.argv[1])
if not settings["use_pure"]:
    # Before the ssl module brings a library that is too old for it.
    importlib.import_module("_mysql_connector")
connector: Any = importlib.import_module("mysql.connector")

connection = connector.connect(**settings)
assert type(connection).__name__ == ("MySQLConnection" if settings["use_pure"] else "CMySQLConnection")
cursor = connection.cursor()
cursor.execute("DELETE FROM notes")
prepared = connection.cursor(prepared=True)
for number in range(3):
    value = None if number == 1 else f"ü{number}"
    prepared.execute("INSERT INTO notes (v, n) VALUES (?, ?)", (value, number))
connection.commit()
prepared = connection.cursor(prepared=True)
prepared.execute("SELECT v, n FROM notes WHERE n >= ? ORDER BY n", (0,))
assert [tuple(row) for row in prepared.fetchall()] == [("ü0", 0), (None, 1), ("ü2", 2)]
prepared.execute("SELECT v, n FROM notes WHERE n >= ? ORDER BY n", (2,))
assert [tuple(row) for row in prepared.fetchall()] == [("ü2", 2)]
moved = connection.cursor(prepared=True)
moved.execute("SELECT id, name, price, made FROM items WHERE id BETWEEN ? AND ? ORDER BY id", (1, 3))
rows = moved.fetchall()
assert [(row[0], str(row[2])) for row in rows] == [(1, "0.25"), (2, "0.50"), (3, "0.75")], rows
assert rows[2][3].microsecond == 500000
moved = connection.cursor(prepared=True)
moved.execute("UPDATE items SET price = price + ? WHERE id = ?", (1, 3))
assert moved.rowcount == 1
connection.rollback()
named = connection.cursor(dictionary=True, buffered=True)
named.execute("SELECT COUNT(*) AS c FROM items WHERE price < %s", (1,))
assert named.fetchone() == {"c": 3}
told = (0, "")
try:
    cursor.execute("SELECT * FROM nothing_here")
except connector.Error as error:
    told = (error.errno, error.sqlstate)
assert told == (1146, "42S02"), told
sets: list[Any] = []
several = connection.cursor()
several.execute("SELECT 1; UPDATE notes SET n = n + 10; SELECT MAX(n) FROM notes")
while True:
    if several.with_rows:
        sets.append([tuple(row) for row in several.fetchall()])
    else:
        sets.append(several.rowcount)
    if not several.nextset():
        break
assert sets == [[(1,)], 3, [(12,)]], sets
connection.commit()
connection.ping(reconnect=False)
connection.database = "@replica"
cursor.execute("SELECT COUNT(*) FROM items")
assert cursor.fetchall() == [(40,)]
connection.reset_session()
connection.database = "shop"
assert connection.is_connected()
connection.start_transaction(isolation_level="READ COMMITTED")
cursor.execute("UPDATE notes SET n = 1")
assert connection.in_transaction
connection.rollback()
connection.close()
print("done")
