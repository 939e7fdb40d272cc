"""Places that remember which commands were started in them, or start another one instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from velollm_core.backends.processes import Child, Place


@frozen(kw_only=True)
class Command:
    """A command as an adapter built it. ``files`` is what it had put into the place's directory
    by then, by relative path.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    files: Mapping[str, bytes] = field(repr=False)
    directory: str


@define
class Record:
    """What happened in a place: the commands, and the processes that stand above the engines."""

    commands: list[Command] = field(factory=list)
    guards: list[int] = field(factory=list)


@frozen(kw_only=True)
class RecordingPlace(Place):
    """A place that notes each command in ``record``.

    With ``instead`` that command is started, whatever is asked for: an adapter that tells its
    settings by what it asked for tells a lie then. ``usual`` is the command that was built for the
    same settings at another time: where the one asked for differs from it (a port, a temporary
    file), the difference is kept.
    """

    record: Record
    usual: Command | None = None
    instead: Command | None = None

    def start(self, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Child:
        """Start ``argv``, or what is to be started instead, and note it."""
        asked = Command(
            argv=tuple(argv),
            environ=dict(environ or {}),
            files=_files(self.directory),
            directory=str(self.directory),
        )
        self.record.commands.append(asked)
        if self.instead is not None and self.usual is not None:
            asked = _exchanged(self.instead, self.usual, asked)
            for name, content in asked.files.items():
                (self.directory / name).write_bytes(content)
        child = super().start(asked.argv, asked.environ)
        self.record.guards.append(child._guard.pid)  # noqa: SLF001 - one unit with processes.py
        return child


def _files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _exchanged(instead: Command, usual: Command, asked: Command) -> Command:
    """``instead`` at the place of ``asked``, with whatever differs from launch to launch."""

    def here(text: str) -> str:
        return text.replace(instead.directory, asked.directory)

    before = [word.replace(usual.directory, asked.directory) for word in usual.argv]
    fresh = {
        asked.argv[index - 1]: word
        for index, word in enumerate(asked.argv)
        if index and index < len(before) and word != before[index]
    }
    argv = [here(word) for word in instead.argv]
    for index in range(1, len(argv)):
        argv[index] = fresh.get(argv[index - 1], argv[index])
    environ = {name: here(value) for name, value in instead.environ.items()}
    environ |= {
        name: value
        for name, value in asked.environ.items()
        if value != usual.environ.get(name, "").replace(usual.directory, asked.directory)
    }
    files = {
        name: content.replace(instead.directory.encode(), asked.directory.encode())
        for name, content in instead.files.items()
    }
    return Command(argv=tuple(argv), environ=environ, files=files, directory=asked.directory)
