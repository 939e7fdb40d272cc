"""What was applied and how it was before: one record for each application, the last one on top.

A record stands on the disk before anything else is touched. One that is not ``applied`` belongs to
a run that was cut short; taking it back brings every file to what it was, however far that run got,
and may itself be cut short and begun again.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from attrs import evolve, frozen

from velollm_core.backends.files import digest, digest_of, own, resemble, stage, sync
from velollm_core.documents import dumps, loads
from velollm_core.errors import DocumentError, Unavailable

KIND = "undo"
MAJOR = 1

_TAKEN = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK})
"""What a lock that another process holds is refused with, on one system or another."""


@frozen(kw_only=True)
class Entry:
    """One file.

    ``path`` is absolute and without links. ``before`` is what the file held, in Base64, ``None``
    where there was none; ``mode``, ``uid`` and ``gid`` are what it then had. ``after`` is the
    SHA-256 of what was written, ``None`` where the file was removed.
    """

    path: str
    summary: str
    before: str | None
    after: str | None
    mode: int = 0
    uid: int = 0
    gid: int = 0

    @property
    def content(self) -> bytes | None:
        """What the file held."""
        return None if self.before is None else b64decode(self.before)


@frozen(kw_only=True)
class Record:
    """One application: its files in the order of writing, and the directories made for them.

    ``applied_at`` is in UTC. ``token`` is part of the names of temporary files. ``then`` are the
    commands after which taking it back takes effect.
    """

    applied_at: str
    token: str
    state: Literal["applying", "applied", "undoing"]
    entries: tuple[Entry, ...]
    directories: tuple[str, ...] = ()
    then: tuple[str, ...] = ()

    def temporary(self, index: int) -> Path:
        """Where the content of that entry is written before it is renamed."""
        return Path(self.entries[index].path).parent / f".velollm-{self.token}-{index}"


@frozen(kw_only=True)
class Outcome:
    """What taking back does to one file.

    ``restored`` and ``removed`` say that it is as before, ``unchanged`` that it was so already.
    ``edited``: it holds neither, and is left alone; ``kept_as`` is where what it held before lies.
    """

    path: Path
    action: Literal["restored", "removed", "unchanged", "edited"]
    kept_as: Path | None = None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process from the records in ``folder``, which is made if it is not there.

    Raises:
        Unavailable: another process has them, or the folder cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / "lock").open("ab")
    except OSError as error:
        raise Unavailable(
            f"{folder} cannot be written: {error.strerror}; without it, nothing could be undone.",
            "Name another folder with VELOLLM_DATA_DIR.",
        ) from error
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno not in _TAKEN:
                raise Unavailable(
                    f"{folder} cannot be locked: {error.strerror}; without that, two changes at "
                    "once could lose one.",
                    "Name a folder on another file system with VELOLLM_DATA_DIR.",
                ) from error
            raise Unavailable(
                f"another velollm is changing files at this moment; {folder} is locked.",
                "Try again when it has finished.",
            ) from error
        yield


def _lock(descriptor: int) -> None:
    """The system releases it when the process ends, in whatever way."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def records(folder: Path) -> tuple[Path, ...]:
    """The files of the records, the newest first."""
    return tuple(sorted(folder.glob("[0-9]" * 6 + ".json"), reverse=True))


def new_record(folder: Path) -> Path:
    """The file of the next record."""
    newest = next((int(path.stem) for path in records(folder)), 0)
    return folder / f"{newest + 1:06}.json"


def load(path: Path) -> Record:
    """The record at ``path``.

    Raises:
        DocumentError: it cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return loads(text, KIND, MAJOR, Record, str(path))
    except DocumentError as error:
        hint = (
            "What the files held before can only be taken from it by hand. Move it away, and "
            "velollm undo goes on with the one before."
        )
        raise DocumentError(error.message, error.hint or hint) from error


def save(path: Path, record: Record) -> None:
    """Write the record, readable for its owner alone: it holds what private files held.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    # Names of files need not be UTF-8.
    content = dumps(KIND, MAJOR, record).encode("utf-8", "surrogateescape")
    _write_private(path, content)


def _write_private(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    stage(temporary, content, mode=0o600)
    temporary.replace(path)
    sync(path.parent)


Held = dict[Path, str | None]
"""What files would hold, as :func:`~velollm_core.backends.files.digest` tells it."""


def outcomes(path: Path, record: Record, held: Held) -> tuple[Outcome, ...]:
    """What taking the record at ``path`` back would do after all newer ones.

    Args:
        path: the file of the record.
        record: what it holds.
        held: what files hold when the newer ones are taken back; where one is not named, as now.
            What they would hold behind this one is put there.

    Raises:
        OSError: a file cannot be read.
    """
    found = []
    for index, entry in enumerate(record.entries):
        outcome = _outcome(path, record, index, held)
        if outcome.action != "edited":
            held[outcome.path] = _digest_before(entry)
        found.append(outcome)
    return tuple(found)


def _digest_before(entry: Entry) -> str | None:
    before = entry.content
    return None if before is None else digest_of(before)


def _outcome(path: Path, record: Record, index: int, held: Mapping[Path, str | None]) -> Outcome:
    entry = record.entries[index]
    target, before = Path(entry.path), entry.content
    now = held[target] if target in held else digest(target)
    if now == _digest_before(entry):
        return Outcome(path=target, action="unchanged")
    if now == entry.after and target.parent.is_dir():
        return Outcome(path=target, action="removed" if before is None else "restored")
    kept_as = None if before is None else path.parent / f"{record.token}-{index}.before"
    return Outcome(path=target, action="edited", kept_as=kept_as)


def take_back(path: Path, record: Record) -> tuple[Outcome, ...]:
    """Bring every file of the record at ``path`` to what it was, and remove the record.

    Directories that were made for it go with it where they are empty.

    Raises:
        OSError: a file cannot be written, which its ``filename`` names; the record stays, and this
            can be called again.
    """
    if record.state == "applied":
        record = evolve(record, state="undoing")
        save(path, record)
    done = []
    for index in reversed(range(len(record.entries))):
        with contextlib.suppress(NotADirectoryError):  # its folder has given way to a file
            record.temporary(index).unlink(missing_ok=True)
        outcome = _outcome(path, record, index, {})
        try:
            _bring_back(record, index, outcome)
        except OSError as error:  # that of a full disk names no file
            raise OSError(error.errno, error.strerror, str(outcome.path)) from error
        done.append(outcome)
    for directory in reversed(record.directories):
        with contextlib.suppress(OSError):  # it is not empty, or gone
            Path(directory).rmdir()
    for near in {_nearest(Path(entry.path).parent) for entry in record.entries}:
        sync(near)
    path.unlink()
    sync(path.parent)
    return tuple(reversed(done))


def _bring_back(record: Record, index: int, outcome: Outcome) -> None:
    entry, content = record.entries[index], record.entries[index].content
    if outcome.action == "removed":
        outcome.path.unlink()
    elif content is not None and outcome.action == "restored":
        temporary = record.temporary(index)
        stage(temporary, content, mode=0o600, dress=lambda path: _dress(path, entry))
        temporary.replace(outcome.path)
    elif content is not None and outcome.kept_as is not None:
        _write_private(outcome.kept_as, content)


def _dress(path: Path, entry: Entry) -> None:
    """As the file that is there now, else as the one that was removed."""
    if entry.after is not None:
        resemble(path, Path(entry.path))
        return
    own(path, entry.uid, entry.gid)
    path.chmod(entry.mode)


def _nearest(directory: Path) -> Path:
    """``directory``, or the one above it that is there."""
    return next(path for path in (directory, *directory.parents) if path.is_dir())
