"""The file of LOAD DATA LOCAL on its way through: follows packet headers to the empty packet that ends it."""

from __future__ import annotations


class FileTail:
    """Finds the end of one file in the client's bytes, cut anywhere."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._left = 0
        self._head = b""

    def feed(self, data: bytes) -> int:
        """Follow ``data``.

        :returns: the position behind the empty packet that ends the file, or -1 if the file goes on.
        """
        pos = 0
        size = len(data)
        while pos < size:
            if self._left:
                step = min(self._left, size - pos)
                self._left -= step
                pos += step
                continue
            need = 4 - len(self._head)
            self._head += data[pos : pos + need]
            pos = min(pos + need, size)
            if len(self._head) == 4:
                self._left = int.from_bytes(self._head[:3], "little")
                self._head = b""
                if not self._left:
                    return pos
        return -1
