"""Files replaced so that whatever happens, they hold the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

OTHER = "no regular file"

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


def digest(path: Path) -> str | None:
    """The SHA-256 of the regular file at ``path``, in hexadecimal.

    Returns:
        ``None`` where nothing is there, :data:`OTHER` where something else is, links included.

    Raises:
        OSError: it cannot be read.
    """
    try:
        status = path.lstat()
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    return digest_of(path.read_bytes()) if stat.S_ISREG(status.st_mode) else OTHER


def digest_of(content: bytes) -> str:
    """The SHA-256 of ``content``, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def stage(
    temporary: Path,
    content: bytes,
    *,
    mode: int = 0o666,
    dress: Callable[[Path], None] | None = None,
) -> None:
    """Write ``content`` to ``temporary``, which must not exist, and on to the disk.

    Args:
        temporary: where; to be renamed by the caller.
        content: the bytes.
        mode: the mode that it is made with, less the process's mask.
        dress: gives it another owner and mode before it can be found.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        if dress is not None:
            dress(temporary)
        os.fsync(file.fileno())


def resemble(path: Path, like: Path) -> None:
    """Give ``path`` the owner, the mode and the further attributes of ``like``, save its times.

    Raises:
        OSError: this process may not.
    """
    status = like.stat()
    own(path, status.st_uid, status.st_gid)
    shutil.copystat(like, path)  # behind the change of owner, which clears some bits of the mode
    os.utime(path)


def own(path: Path, uid: int, gid: int) -> None:
    """Give ``path`` to that user and group, where the system has such and it is another's.

    Raises:
        OSError: this process may not.
    """
    status = path.stat()
    if hasattr(os, "chown") and (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(path, uid, gid)


def sync(directory: Path) -> None:
    """Bring what was renamed, made or removed in ``directory`` on to the disk, where that can be.

    Raises:
        OSError: it is not there.
    """
    if os.name == "nt":  # a directory cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
