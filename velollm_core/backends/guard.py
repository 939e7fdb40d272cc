"""Runs one program and ends it when the pipe on standard input closes. Started as a script,
standard library only.

Called as ``python -I -S guard.py LOG PROGRAM [ARG ...]``. Prints the program's process id, or why
it could not be started, and then ends with its exit code (128 + N for signal N). A number on
standard input is a request to stop with that many seconds of grace; end of file, which is what
SIGKILL of the parent gives, is the same with one second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

_GRACE_S = 1.0


def _kill(program: subprocess.Popen[bytes], *, hard: bool) -> None:
    try:
        if os.name == "posix":
            os.killpg(program.pid, signal.SIGKILL if hard else signal.SIGTERM)
        elif hard:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(program.pid)], check=False)
        else:
            program.terminate()
    except (ProcessLookupError, PermissionError):
        pass


def _watch(program: subprocess.Popen[bytes]) -> None:
    # Not sys.stdin: a thread that waits in its buffer keeps the interpreter from ending.
    line = os.read(0, 64)
    try:
        grace_s = float(line) if line.strip() else _GRACE_S
    except ValueError:
        grace_s = _GRACE_S
    _kill(program, hard=False)
    deadline = time.monotonic() + grace_s
    while program.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    _kill(program, hard=True)


def main(argv: list[str]) -> int:
    log, command = argv[1], argv[2:]
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # Ctrl-C and a closed terminal reach VeloLLM, which decides; the guard obeys its pipe alone.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        with open(log, "ab") as output:  # noqa: PTH123 - pathlib costs more than this whole script
            program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=os.name == "posix",
                preexec_fn=_default_signals if os.name == "posix" else None,  # noqa: PLW1509
            )
    except OSError as error:
        print(error.strerror or error, flush=True)  # noqa: T201 - the protocol with the parent
        return 127
    print(program.pid, flush=True)  # noqa: T201 - the protocol with the parent
    threading.Thread(target=_watch, args=(program,), daemon=True).start()
    code = program.wait()
    if os.name == "posix":
        _kill(program, hard=True)  # children that the program left in its group
    return code if code >= 0 else 128 - code


def _default_signals() -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
