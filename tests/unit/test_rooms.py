"""ARCHITECTURE.md's table of arrows is the law; this reads it and the imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "homeworld"
LIMIT = 600
# Files that are tables or generated, with the reason.
LONG: dict[str, str] = {}


def allowed() -> dict[str, set[str]]:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| ([a-z]+) \| ([a-z, *]*)\|$", text, re.MULTILINE)
    table = {room: {name.strip() for name in names.split(",") if name.strip()} for room, names in rows}
    assert len(table) >= 14
    return table


def room_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_rooms(path: Path) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "homeworld" else [module]
        rooms |= {name.split(".")[1] for name in names if name.startswith("homeworld.")}
    return rooms


def test_every_import_follows_the_table() -> None:
    table = allowed()
    wrong: list[str] = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = room_of(path)
        if room in {"__init__", "__main__"}:
            continue
        assert room in table, f"room {room} is not in ARCHITECTURE.md"
        if "*" in table[room]:
            continue
        strangers = imported_rooms(path) - table[room] - {room}
        wrong += [f"{path.relative_to(ROOT)} imports {stranger}" for stranger in sorted(strangers)]
    assert not wrong, "\n".join(wrong)


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for folder in ("src", "tests", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > LIMIT and str(path.relative_to(ROOT)) not in LONG
    }
    assert not long, f"over {LIMIT} lines: {long}"
