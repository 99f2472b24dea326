"""Definitions as texts: what differs between two sets of them, told as people read it. Pure.

Knows no server: a definition is the CREATE statement as its server shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import unified_diff
from html import escape

_CONTEXT_LINES = 1_000_000  # the whole statement is shown around what differs


def difference(before: str, after: str) -> str:
    r"""The lines of ``after`` with what came (``+``) and what went (``-``); empty where they are equal.

    >>> print(difference("CREATE TABLE `t` (\n  `a` int\n)", "CREATE TABLE `t` (\n  `b` int\n)"))
     CREATE TABLE `t` (
    -  `a` int
    +  `b` int
     )
    """
    if before == after:
        return ""
    lines = list(unified_diff(before.splitlines(), after.splitlines(), n=_CONTEXT_LINES, lineterm=""))
    # Without the two lines that name files and the one that counts lines.
    return "\n".join(lines[3:])


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """The difference of each definition that is not the same on both sides, by name.

    :param before: name to CREATE statement.
    """
    names = sorted({*before, *after})
    found = {name: difference(before.get(name, ""), after.get(name, "")) for name in names}
    return {name: text for name, text in found.items() if text}


def diff_html(text: str) -> str:
    """A difference as HTML: one element for each line, which says whether it came or went."""
    kinds = {"+": "ins", "-": "del"}
    lines: list[str] = []
    for line in text.splitlines():
        tag = kinds.get(line[:1], "span")
        lines.append(f"<{tag}>{escape(line)}</{tag}>")
    return "<pre>" + "\n".join(lines) + "</pre>"


def definition_html(text: str) -> str:
    """A definition as HTML."""
    return f"<pre>{escape(text)}</pre>"
