"""The only input of detection: tools run in bounded time, files below a root, calls."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

from attrs import define, field, frozen

from velollm_core.hardware.native import Native

T = TypeVar("T")
_MOST_OUTPUT_BYTES = 4 * 1024**2
_PIECE_BYTES = 64 * 1024
_MOST_PIECES = 128  # 8 MiB: the largest file read is the table of PCI names, 1.5 MB
_REASON_CHARACTERS = 200
_GRACE_S = 0.25


@frozen
class Finished:
    """A tool that ended by itself: its exit code and what it wrote."""

    code: int
    out: str
    err: str = ""


Execute = Callable[[Sequence[str], float, Mapping[str, str]], Finished]


def execute(argv: Sequence[str], timeout_s: float, environ: Mapping[str, str]) -> Finished:
    """Run one tool to its end, or kill it and its children, also when interrupted.

    Args:
        argv: program, looked up on the ``PATH`` of ``environ``, and arguments; no shell reads them.
        timeout_s: seconds it may take.
        environ: its whole environment.

    Raises:
        FileNotFoundError: there is no such program.
        TimeoutError: it did not end in time, or wrote without end.
        OSError: it may not be executed.
    """
    program = shutil.which(argv[0], path=environ.get("PATH"))
    if program is None:
        raise FileNotFoundError(argv[0])
    try:
        tool = subprocess.Popen(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except FileNotFoundError:
        raise OSError(errno.ENOEXEC, "is a script whose interpreter is missing") from None
    streams = [stream for stream in (tool.stdout, tool.stderr) if stream is not None]
    written = [b"", b""]
    readers: list[threading.Thread] = []
    try:
        # Not communicate(): it would keep all that a runaway tool writes in two seconds.
        for index, stream in enumerate(streams):
            arguments = (written, index, stream)
            reader = threading.Thread(target=_read_into, args=arguments, daemon=True)
            reader.start()
            readers.append(reader)
        code = tool.wait(timeout_s)
        if not _joined(readers):
            _end_group(tool)  # a child that outlived the tool holds its pipes open
    except BaseException as error:
        _end_group(tool)
        with contextlib.suppress(subprocess.TimeoutExpired):
            tool.wait(_GRACE_S)  # one stuck in a driver cannot be killed; it is left behind
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError(argv[0]) from None
        raise
    finally:
        if _joined(readers):
            for stream in streams:
                stream.close()
    return Finished(code, *(output.decode("utf-8", "replace") for output in written))


def _joined(threads: Sequence[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(_GRACE_S)
    return not any(thread.is_alive() for thread in threads)


def _read_into(written: list[bytes], index: int, stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        written[index] = stream.read(_MOST_OUTPUT_BYTES)


def _end_group(tool: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        argv = ["taskkill", "/T", "/F", "/PID", str(tool.pid)]
        subprocess.run(argv, check=False, capture_output=True)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(tool.pid, signal.SIGKILL)


@define(kw_only=True)
class Probe:
    """What detection looks through; tests plant tools, files and calls in it.

    Nothing that it does raises: a tool, file or value that is not there is ``None``. A tool that
    hangs, fails or may not run is named in ``notes``, once, and one that hung is not asked again.

    Args:
        root: files are read below it.
        system: ``Linux``, ``Darwin`` or ``Windows``.
        machine: the processor architecture as ``uname -m`` says it.
        environ: environment variables, also those of the tools.
        timeout_s: seconds that one tool may take.
        execute: how a tool is run.
        native: calls into the system, where no file or tool tells.
    """

    root: Path = Path("/")
    system: str = field(factory=platform.system)
    machine: str = field(factory=platform.machine)
    environ: Mapping[str, str] = field(factory=lambda: dict(os.environ))
    timeout_s: float = 2.0
    execute: Execute = execute
    native: Native = field(factory=Native)
    notes: list[str] = field(factory=list)
    hung: set[str] = field(factory=set)

    def note(self, about: str, reason: str) -> None:
        """Record what went wrong with a tool or a source, without the user's home in it."""
        home = self.environ.get("HOME") or self.environ.get("USERPROFILE")
        shown = reason.replace(home, "~") if home and len(home) > 1 else reason
        line = f"{about}: {shown}"
        if line not in self.notes:
            self.notes.append(line)

    def run(self, *argv: str, quiet: bool = False) -> str | None:
        """What a tool writes to standard output, or ``None`` where it is missing, fails or hangs.

        Args:
            argv: program and arguments.
            quiet: do not note that it failed, for a question that older versions do not know.
        """
        tool = argv[0]
        if tool in self.hung:
            return None
        environ = {**self.environ, "LC_ALL": "C", "LANG": "C", "LANGUAGE": "C"}
        try:
            finished = self.execute(argv, self.timeout_s, environ)
        except FileNotFoundError:
            return None
        except TimeoutError:
            self.hung.add(tool)
            self.note(tool, f"gave no answer within {self.timeout_s:g} s and was ended")
            return None
        except OSError as error:
            self.note(tool, error.strerror or "cannot be run")
            return None
        if finished.code != 0:
            if not quiet:
                self.note(tool, f"failed with exit code {finished.code}{_last_words(finished)}")
            return None
        return finished.out

    def run_all(self, *commands: Sequence[str], quiet: bool = False) -> list[str | None]:
        """Several commands at the same time; their outputs in order, see :meth:`run`."""
        with ThreadPoolExecutor(len(commands) or 1) as pool:
            return list(pool.map(lambda argv: self.run(*argv, quiet=quiet), commands))

    def bounded(self, about: str, function: Callable[[], T]) -> T | None:
        """What ``function`` returns, or ``None`` where it raises or takes longer than a tool may.

        For libraries that call into a driver. A call that hangs is left behind in a daemon thread.
        """
        results: list[T] = []
        faults: list[Exception] = []

        def call() -> None:
            try:
                results.append(function())
            except Exception as error:  # noqa: BLE001 - whatever a library raises is noted
                faults.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(self.timeout_s)
        if results:
            return results[0]
        if faults:
            self.note(about, f"{type(faults[0]).__name__}: {faults[0]}"[:_REASON_CHARACTERS])
        else:
            self.hung.add(about)
            self.note(about, f"gave no answer within {self.timeout_s:g} s")
        return None

    def read_bytes(self, path: str) -> bytes | None:
        """The file at ``path``, an absolute POSIX path; ``None`` where it cannot be read."""
        try:
            with (self.root / path.lstrip("/")).open("rb") as file:
                # In pieces: the kernel refuses to fill a buffer of megabytes from /proc/sys.
                pieces = iter(lambda: file.read(_PIECE_BYTES), b"")
                return b"".join(itertools.islice(pieces, _MOST_PIECES))
        except (OSError, ValueError):
            return None

    def read(self, path: str) -> str | None:
        """The file at ``path`` as text without white space and NULs around it."""
        content = self.read_bytes(path)
        return None if content is None else content.decode("utf-8", "replace").strip("\0 \t\r\n")

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted; empty where there is none."""
        try:
            return tuple(sorted(entry.name for entry in (self.root / path.lstrip("/")).iterdir()))
        except (OSError, ValueError):
            return ()

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory at ``path``."""
        try:
            return (self.root / path.lstrip("/")).exists()
        except (OSError, ValueError):
            return False


def _last_words(finished: Finished) -> str:
    lines = (finished.err.strip() or finished.out.strip()).splitlines()
    return f": {lines[-1].strip()[:_REASON_CHARACTERS]}" if lines else ""
