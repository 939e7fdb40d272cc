"""Changes to the user's files, as data; applied all or not at all, and taken back byte for byte."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from attrs import evolve, field, frozen

from velollm_core.backends import undo_log
from velollm_core.backends.files import digest_of, resemble, stage, sync
from velollm_core.backends.undo_log import Entry, Outcome, Record
from velollm_core.errors import UsageError


@frozen(kw_only=True)
class Change:
    """Make this file hold ``content``; ``None`` removes it.

    ``summary`` says in a few words what for. Where ``needs_root``, it is shown and never done.
    ``then`` are commands that the user has to run for it to take effect: shown, never run.
    """

    path: Path
    content: bytes | None
    summary: str
    needs_root: bool = False
    then: tuple[str, ...] = ()


@frozen(kw_only=True)
class Undone:
    """What was taken back: one application, made at ``applied_at`` (UTC, ISO 8601).

    ``cut_short``: it had not been finished, or its undoing had not. ``summaries`` belong to
    ``outcomes``, one for each file. ``then`` are the commands after which that takes effect.
    """

    applied_at: str
    cut_short: bool
    summaries: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    then: tuple[str, ...]


@frozen(kw_only=True)
class Applied:
    """What became of changes.

    ``written`` are those that were made, ``unchanged`` those whose file already holds what it
    should, ``for_root`` those that are left to the user. ``recovered`` is what an earlier run had
    left half-done, which was taken back first.
    """

    written: tuple[Change, ...] = ()
    unchanged: tuple[Change, ...] = ()
    for_root: tuple[Change, ...] = ()
    recovered: Undone | None = None


@frozen
class _Step:
    """A change, the file that it really means, and what that holds."""

    change: Change
    target: Path
    before: bytes | None = field(repr=False)
    status: os.stat_result | None = field(repr=False)


def apply(changes: Iterable[Change], folder: Path) -> Applied:
    """Make ``changes``, all of them or none.

    Links are followed, so that their target is replaced. Mode and owner of a file stay. What it
    held is written to ``folder`` before anything is touched, so that :func:`undo` finds it there
    whenever this process ends.

    Args:
        changes: for one file each.
        folder: where the records of what was applied are.

    Raises:
        UsageError: two of them mean one file, or a file cannot be written. Nothing is changed.
        Unavailable: another process changes files now.
    """
    changes = tuple(changes)
    own = tuple(change for change in changes if not change.needs_root)
    with undo_log.locked(folder):
        recovered = _recover(folder)
        steps = _steps(own)
        needed = [step for step in steps if step.before != step.change.content]
        if needed:
            _carry_out(needed, undo_log.new_record(folder))
    return Applied(
        written=tuple(step.change for step in needed),
        unchanged=tuple(step.change for step in steps if step not in needed),
        for_root=tuple(change for change in changes if change.needs_root),
        recovered=recovered,
    )


def undo(folder: Path) -> Undone | None:
    """Take back what was applied last, or finish what was cut short.

    A file that was edited since is left alone.

    Returns:
        ``None`` where there is nothing to take back.

    Raises:
        UsageError: a file cannot be written. This can be called again.
        Unavailable: another process changes files now.
    """
    with undo_log.locked(folder):
        newest = next(iter(undo_log.records(folder)), None)
        return None if newest is None else _take_back(newest, undo_log.load(newest))


def history(folder: Path) -> tuple[Undone, ...]:
    """What can be taken back, the newest first, each with what :func:`undo` would do to its files
    when those before it are taken back.

    Raises:
        UsageError: a record, or a file that it names, cannot be read.
    """
    found = []
    held: undo_log.Held = {}
    for path in undo_log.records(folder):
        record = undo_log.load(path)
        try:
            found.append(_undone(record, undo_log.outcomes(path, record, held)))
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return tuple(found)


def _recover(folder: Path) -> Undone | None:
    newest = next(iter(undo_log.records(folder)), None)
    if newest is None:
        return None
    record = undo_log.load(newest)
    return None if record.state == "applied" else _take_back(newest, record)


def _take_back(path: Path, record: Record) -> Undone:
    try:
        outcomes = undo_log.take_back(path, record)
    except OSError as error:
        raise UsageError(
            f"{error.filename or path} cannot be written: {error.strerror}.",
            f"Mend that and run velollm undo again; {path} keeps what was there before.",
        ) from error
    return _undone(record, outcomes)


def _undone(record: Record, outcomes: tuple[Outcome, ...]) -> Undone:
    return Undone(
        applied_at=record.applied_at,
        cut_short=record.state != "applied",
        summaries=tuple(entry.summary for entry in record.entries),
        outcomes=outcomes,
        then=record.then,
    )


def _steps(changes: Iterable[Change]) -> list[_Step]:
    steps: list[_Step] = []
    for change in changes:
        target = Path(os.path.realpath(change.path))
        if any(step.target == target for step in steps):
            raise UsageError(f"two changes mean the same file, {target}; nothing was changed.")
        try:
            steps.append(_step(change, target))
        except OSError as error:
            raise _refused(error, target) from error
    return steps


def _step(change: Change, target: Path) -> _Step:
    try:
        status = target.lstat()
    except FileNotFoundError:
        return _Step(change, target, None, None)
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{change.path} is no regular file; nothing was changed.")
    if not os.access(target, os.W_OK):  # to rename over it would be possible, and not meant
        raise PermissionError(errno.EACCES, "it is write-protected")
    return _Step(change, target, target.read_bytes(), status)


def _carry_out(steps: list[_Step], path: Path) -> None:
    record = _record(steps)
    at = path
    try:
        undo_log.save(path, record)
        for directory in record.directories:
            at = Path(directory)
            at.mkdir()
        for index, step in enumerate(steps):
            at = step.target
            _stage(step, record.temporary(index))
        for index, step in enumerate(steps):
            at = step.target
            _put(step, record.temporary(index))
        for at in _touched(record):
            sync(at)
        at = path
        undo_log.save(path, evolve(record, state="applied"))
    except BaseException as error:
        if path.exists():
            _take_back(path, record)
        if isinstance(error, OSError):
            raise _refused(error, at) from error
        raise


def _record(steps: list[_Step]) -> Record:
    return Record(
        applied_at=datetime.now(UTC).isoformat(timespec="seconds"),
        token=secrets.token_hex(4),
        state="applying",
        entries=tuple(_entry(step) for step in steps),
        directories=_missing_directories(steps),
        then=tuple(dict.fromkeys(command for step in steps for command in _then_back(step))),
    )


def _then_back(step: _Step) -> Iterable[str]:
    """The commands that are still there to be run when a step is taken back: not those on a file
    that then is gone.
    """
    gone = step.before is None
    return (entry for entry in step.change.then if not gone or str(step.change.path) not in entry)


def _entry(step: _Step) -> Entry:
    content, status = step.change.content, step.status
    entry = Entry(
        path=str(step.target),
        summary=step.change.summary,
        before=None if step.before is None else b64encode(step.before).decode("ascii"),
        after=None if content is None else digest_of(content),
    )
    if status is None:
        return entry
    mode = stat.S_IMODE(status.st_mode)
    return evolve(entry, mode=mode, uid=status.st_uid, gid=status.st_gid)


def _missing_directories(steps: list[_Step]) -> tuple[str, ...]:
    """Those that have to be made, each behind the one that it is in."""
    missing = {
        str(parent)
        for step in steps
        for parent in step.target.parents
        if not os.path.lexists(parent)
    }
    return tuple(sorted(missing, key=len))


def _stage(step: _Step, temporary: Path) -> None:
    content = step.change.content
    if content is None:
        return
    if step.before is None:
        stage(temporary, content)
    else:
        stage(temporary, content, mode=0o600, dress=lambda path: resemble(path, step.target))


def _put(step: _Step, temporary: Path) -> None:
    if step.change.content is None:
        step.target.unlink()
    else:
        temporary.replace(step.target)


def _touched(record: Record) -> Iterable[Path]:
    """Directories in which something was renamed, removed or made."""
    return {Path(entry.path).parent for entry in record.entries} | {
        Path(directory).parent for directory in record.directories
    }


def _refused(error: OSError, path: Path) -> UsageError:
    return UsageError(
        f"{path} cannot be written: {error.strerror}.",
        "Nothing was changed; name another place, or make it writable.",
    )
