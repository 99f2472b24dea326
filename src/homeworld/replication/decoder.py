"""Row events to rows, by a function generated for each table from its table map.

Straight-line code for the columns at hand, with neighbouring fields of fixed size unpacked in one call, is
twice as fast as a loop over column types; it is what lets plain Python follow a busy server. There are two
ways through a row: one for rows without any NULL, one that asks for each column that may hold one.

It knows one table at a time, no positions and no transactions. Invariant: rows come out only if the images
fill the event exactly and hold every column.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import cast

from homeworld.model.errors import MalformedPacketError, SchemaDriftError, UnsupportedLogError
from homeworld.model.tables import Table
from homeworld.replication.changes import Row
from homeworld.replication.decoder_columns import COMMON_NAMES, Code, code_of
from homeworld.wire.binlog_events import uncompress
from homeworld.wire.binlog_rows import TableMap, read_rows_head

_Images = Callable[[bytes, int, int], list[Row]]


class RowDecoder:
    """Reads the row events of one table as one table map describes them.

    :param logged: the table map that stands in front of the events.
    :param table: the table as it is known; its columns are what rows are given as.
    :raises SchemaDriftError: the two cannot be the same table.
    :raises UnsupportedLogError: the table has a column that is not read.
    """

    __slots__ = ("_columns", "_images", "_name")

    def __init__(self, logged: TableMap, table: Table) -> None:
        self._name = f"{logged.schema}.{logged.table}"
        self._columns = len(logged.columns)
        if self._columns != len(table.columns):
            raise SchemaDriftError(
                f"{self._name} has {len(table.columns)} columns, the binlog has {self._columns}"
            )
        codes: list[Code] = []
        for ours, theirs in zip(table.columns, logged.columns, strict=True):
            try:
                codes.append(code_of(theirs, ours))
            except (SchemaDriftError, UnsupportedLogError) as error:
                raise type(error)(f"{self._name}: {error.message}") from error
        self._images = _compile(self._name, codes, [column.nullable for column in logged.columns])

    def images(
        self,
        buffer: bytes,
        start: int,
        end: int,
        *,
        extra_head: bool,
        two: bool,
        compressed: bool = False,
    ) -> list[Row]:
        """The images of a row event, in order; of an update before and after alternate.

        :param extra_head: the event is of version 2.
        :param two: it is an update.
        :param compressed: what follows the head is compressed (MariaDB).
        :raises UnsupportedLogError: the images do not hold every column.
        :raises MalformedPacketError: the event does not fit the table map.
        """
        try:
            columns, _, full, position = read_rows_head(buffer, start, extra_head=extra_head, two_images=two)
            if columns != self._columns:
                raise MalformedPacketError(f"a row event of {self._name} has another number of columns")
            if not full:
                raise UnsupportedLogError(
                    f"the binlog of {self._name} does not hold all columns of a row; set "
                    "binlog_row_image=FULL on the source, in every session"
                )
            if compressed:
                buffer = uncompress(buffer[position:end])
                position, end = 0, len(buffer)
            rows = self._images(buffer, position, end)
        except (IndexError, struct.error, ValueError) as error:
            raise MalformedPacketError(f"a row event of {self._name} cannot be read") from error
        if two and len(rows) & 1:
            raise MalformedPacketError(f"an update of {self._name} lacks an image")
        return rows


_FUNCTION = """\
def images(b, p, end):
    rows = []
    append = rows.append
    while p < end:
        nulls = {nulls} & {mask}
        p += {size}
        if not nulls:
{fast}
        else:
{slow}
        append(({row},))
    if p != end:
        raise Malformed("the rows do not fill their event")
    return rows
"""


def _compile(name: str, codes: Sequence[Code], nullable: Sequence[bool]) -> _Images:
    count = len(codes)
    scope: dict[str, object] = dict(COMMON_NAMES)
    scope["Malformed"] = MalformedPacketError
    for index, code in enumerate(codes):
        for own, value in code.names.items():
            scope[f"{own}{index}"] = value
    size = (count + 7) // 8
    source = _FUNCTION.format(
        # Bits beyond the last column may be set.
        nulls="b[p]" if size == 1 else f'INT(b[p : p + {size}], "little")',
        mask=(1 << count) - 1,
        size=size,
        fast=_Writer(codes, [False] * count, scope, "            ").text(),
        slow=_Writer(codes, nullable, scope, "            ").text() if any(nullable) else _NEVER,
        row=", ".join(f"c{index}" for index in range(count)),
    )
    exec(compile(source, f"<rows of {name}>", "exec"), scope)  # noqa: S102 made from types, holds no text of others
    return cast("_Images", scope["images"])


_NEVER = '            raise Malformed("a row has NULL in a column that allows none")'


class _Writer:
    """Writes the lines that read one row; neighbouring fixed fields are gathered and unpacked together."""

    def __init__(
        self, codes: Sequence[Code], may_be_null: Sequence[bool], scope: dict[str, object], indent: str
    ) -> None:
        self._codes = codes
        self._may_be_null = may_be_null
        self._scope = scope
        self._indent = indent
        self._lines: list[str] = []
        self._run: list[tuple[str, str]] = []  # struct code, variable
        self._after: list[str] = []  # conversions that wait for the run

    def text(self) -> str:
        for index, code in enumerate(self._codes):
            if self._may_be_null[index]:
                self._flush()
                self._line(f"if nulls & {1 << index}:")
                self._line(f"    c{index} = None")
                self._line("else:")
                outer, self._indent = self._indent, self._indent + "    "
                self._column(index, code)
                self._flush()
                self._indent = outer
            else:
                self._column(index, code)
        self._flush()
        return "\n".join(self._lines)

    def _column(self, index: int, code: Code) -> None:
        names = [f"f{index}_{number}" for number in range(len(code.fields))]
        self._run += zip(code.fields, names, strict=True)
        own = f"own{index}"
        if not code.length:
            self._after.append(f"c{index} = {code.expression.format(*names, own=own)}")
            return
        self._flush()
        length = code.length.format(*names)
        if code.expression == "{value}":
            self._line(f"c{index} = b[p : p + {length}]")
        else:
            value = f"b[p : p + {length}]"
            self._line(f"c{index} = {code.expression.format(*names, own=own, value=value)}")
        self._line(f"p += {length}")

    def _flush(self) -> None:
        if self._run:
            form = "<" + "".join(code for code, _ in self._run)
            size = struct.calcsize(form)
            targets = ", ".join(name for _, name in self._run)
            if form == "<B":
                self._line(f"{targets} = b[p]")
            elif form == "<H":
                self._line(f"{targets} = b[p] | b[p + 1] << 8")
            elif len(self._run) == 1 and form.endswith("s"):
                self._line(f"{targets} = b[p : p + {size}]")
            else:
                unpack = "unpack_" + form[1:]
                self._scope.setdefault(unpack, struct.Struct(form).unpack_from)
                self._line(f"{targets}{',' if len(self._run) == 1 else ''} = {unpack}(b, p)")
            self._line(f"p += {size}")
            self._run.clear()
        for line in self._after:
            self._line(line)
        self._after.clear()

    def _line(self, text: str) -> None:
        self._lines.append(self._indent + text)
