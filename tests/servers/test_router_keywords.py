"""Every word that a server knows, as a name: where the server takes a text, each table it names is found."""

from __future__ import annotations

import contextlib
import re

import pytest

from homeworld.gateway.sql_tables import scan
from tests.support import mysqld

pytestmark = pytest.mark.servers

# ``!`` is the word where a table's name stands, ``~`` the word as a column or an alias.
TEXTS = (
    "SELECT * FROM a ~, b",
    "SELECT ~ FROM a AS ~ JOIN b ON ~ = 1 JOIN c",
    "SELECT * FROM a JOIN b ON a.~ = b.~ JOIN c ON ~.x = 1 JOIN d",
    "SELECT * FROM ! x JOIN a USE INDEX (~), b",
    "SELECT * FROM a LEFT JOIN (!, b) ON 1, c",
    "UPDATE ! SET ~ = (SELECT id FROM a)",
    "UPDATE a ~ JOIN b SET a.id = ~",
    "INSERT INTO ! (~) SELECT id FROM b",
    "DELETE FROM ~ USING a AS ~ JOIN b",
    "TRUNCATE !",
    "RENAME TABLE ! TO a, b TO !",
    "CREATE TABLE a (~ INT, FOREIGN KEY (~) REFERENCES b (id)) SELECT * FROM !",
    "ALTER TABLE ! RENAME a",
    "LOCK TABLES a ~ READ, ! WRITE",
)
_NOT_READ = {1064, 1149, 1221, 1248, 1295}


def test_no_word_hides_a_table(gateway_server: mysqld.TestServer, gateway_schema: str) -> None:
    words = [str(row[0]) for row in gateway_server.query("SELECT word FROM information_schema.keywords")]
    read = 0
    connection = gateway_server.connect(schema=gateway_schema)
    with contextlib.closing(connection), connection.cursor() as cursor:
        for word in (one for one in words if re.fullmatch(r"\w+", one)):
            for text in TEXTS:
                sql = text.replace("~", word).replace("!", word)
                try:
                    cursor.execute("PREPARE s FROM %s", (sql,))
                except connection.Error as error:
                    if error.args[0] in _NOT_READ:
                        continue
                read += 1
                found = {ref.name for ref in scan(sql.encode()).tables}
                named = {*re.findall(r"(?<![.\w])[abcd]\b(?!\.)", text), *([word] if "!" in text else [])}
                assert named <= found, (sql, found)
    assert read > 100 * len(TEXTS)
