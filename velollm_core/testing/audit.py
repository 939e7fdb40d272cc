"""Which files a piece of code leaves behind, seen by Python's own audit events."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_watching: list[set[Path]] = []
_hooked: list[bool] = []  # a hook cannot be taken out again, so there is one, made when needed


@contextmanager
def left_behind() -> Iterator[set[Path]]:
    """Gives a set that holds, after the end, every file and folder that was made or opened for
    writing inside and is still there.

    Bytecode caches and devices do not count.
    """
    if not _hooked:
        sys.addaudithook(_note)
        _hooked.append(True)
    touched: set[Path] = set()
    found: set[Path] = set()
    _watching.append(touched)
    try:
        yield found
    finally:
        _watching.remove(touched)
        found |= {path for path in touched if path.exists() and _counts(path)}


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching:
        return
    target: object = None
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
    if writes or event in {"os.mkdir", "sqlite3.connect"}:
        target = arguments[0]
    elif event in {"os.rename", "os.link", "os.symlink"}:
        target = arguments[1]
    if isinstance(target, (str, bytes, os.PathLike)):
        path = Path(os.fsdecode(target)).absolute()
        for touched in _watching:
            touched.add(path)


def _counts(path: Path) -> bool:
    return "__pycache__" not in path.parts and (path.is_file() or path.is_dir())
