"""A process of the bench that does what it is told, one JSON line after the other: both ends of the pipe.

The child answers each line with one line; its log goes to a file. Knows no figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from bench.lab import BenchError

ROOT = Path(__file__).resolve().parents[2]
Act = Callable[..., object]


def serve(acts: Mapping[str, Act], asked: TextIO = sys.stdin, told: TextIO = sys.stdout) -> None:
    """Do what is asked until the pipe ends."""
    for line in asked:
        words = json.loads(line)
        answer = acts[words.pop("do")](**words)
        told.write(json.dumps(answer) + "\n")
        told.flush()


class Child:
    """The other end: ``child.ask("snapshot", times=5)``. Use it as a context manager.

    :param module: run by ``python -m``.
    :param log: where what it says beside its answers goes.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._log = log
        self._file = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._file, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_why: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its pid."""
        return self._process.pid

    def ask(self, do: str, **words: object) -> Any:
        """Have it do something; what it answers.

        :raises BenchError: it has ended.
        """
        told, heard = self._process.stdin, self._process.stdout
        if told is None or heard is None:
            raise BenchError("the child has no pipes")
        try:
            told.write(json.dumps({"do": do, **words}) + "\n")
            told.flush()
            line = heard.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"{do}: the process has ended: {self._log.read_text()[-3000:]}")
        return json.loads(line)

    def close(self) -> None:
        """End it: in order where it does."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(60.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._file.close()
