"""Kills a process wherever it has changed the disk, and looks at what the next one makes of it.

Not a test itself: test_changes.py runs it, in a process without threads, which may fork.

The code under test is watched at every line that it runs and, within lines too, before every call
of the system that opens, renames, makes or removes something (those that Python's audit events tell
of). Wherever the disk is not as at the point before, the process is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
from pathlib import Path

from velollm_core.backends import changes, files, undo_log

CODE = {module.__file__ for module in (changes, files, undo_log)}
CALLS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown")


def snapshot(folder):
    """Everything in ``folder``: kind, mode, content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            held = path.readlink()
        elif stat.S_ISREG(status.st_mode):
            held = path.read_bytes()
        else:
            held = None
        found[str(path.relative_to(folder))] = (stat.filemode(status.st_mode), held)
    return found


class Points:
    """Counts the points of what runs, notes which found the disk changed, and kills at one."""

    def __init__(self, last, folder):
        self.last = last
        self.folder = folder
        self.seen = 0
        self.changed = []
        self.state = snapshot(folder)
        self.watching = False

    def run(self, action):
        sys.addaudithook(self.audit)
        self.watching = True
        sys.settrace(self.trace)
        action()
        sys.settrace(None)
        self.point()

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename not in CODE:
            return None
        if event == "line":
            self.point()
        return self.trace

    def audit(self, event, arguments):
        if self.watching and event in CALLS:
            self.point()

    def point(self):
        self.seen += 1
        if self.seen == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.last == 0:
            self.watching = False
            state = snapshot(self.folder)
            self.watching = True
            if state != self.state:
                self.changed.append(self.seen)
            self.state = state


def in_child(action, last, folder):
    """Run ``action`` in a child that is killed at point ``last``, if there is one.

    Returns:
        The points at which the disk had changed; ``None`` where it was killed.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        points = Points(last, folder)
        points.run(action)
        os.write(writing, json.dumps(points.changed).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.WEXITSTATUS(status) == 0
    return json.loads(told)


def fresh(folder):
    """A home with a file of each kind, and no record of anything."""
    shutil.rmtree(folder, ignore_errors=True)
    home = folder / "home"
    (home / "dotfiles").mkdir(parents=True)
    (home / "plain.ini").write_bytes(b"old\r\n")
    (home / "plain.ini").chmod(0o640)
    (home / "dotfiles" / "real.ini").write_bytes(b"linked")
    (home / "link.ini").symlink_to("dotfiles/real.ini")
    (home / "gone.ini").write_bytes(b"to be removed")
    (home / "gone.ini").chmod(0o600)
    return home, folder / "undo"


def some(home):
    contents = {
        "plain.ini": b"new",
        "link.ini": b"new too",
        "a/b/made.ini": b"made",
        "gone.ini": None,
    }
    return [
        changes.Change(path=home / name, content=content, summary=name)
        for name, content in contents.items()
    ]


def another(home):
    return [
        changes.Change(path=home / "plain.ini", content=b"another", summary="another"),
        changes.Change(path=home / "a" / "other.ini", content=b"another", summary="another"),
    ]


def check(what, folder, last, halfway):
    """One process killed at point ``last``.

    Returns:
        What :func:`in_child` does, and what is wrong afterwards.
    """
    home, log = fresh(folder)
    before = snapshot(home)
    if what == "undo":
        changes.apply(some(home), log)
        told = in_child(lambda: changes.undo(log), last, folder)
    elif what == "recovery":
        in_child(lambda: changes.apply(some(home), log), halfway, folder)
        told = in_child(lambda: changes.apply([], log), last, folder)
    else:
        told = in_child(lambda: changes.apply(some(home), log), last, folder)
    wrong = []
    if what == "apply, then another":
        complete = any('"applied"' in path.read_text() for path in log.glob("*.json"))
        changes.apply(another(home), log)
        assert (home / "plain.ini").read_bytes() == b"another"
        if (home / "gone.ini").exists() == complete:
            wrong.append("what was cut short was not taken back first")
        changes.undo(log)
    changes.undo(log)
    wrong += sorted(map(repr, snapshot(home).items() ^ before.items()))
    wrong += [f"{path.name} is left" for path in log.glob("*.json")]
    return told, wrong


def halfway_of(folder):
    """The last point at which everything is renamed, and the record does not say so yet."""
    home, log = fresh(folder)
    changed = in_child(lambda: changes.apply(some(home), log), 0, folder)
    for last in reversed(changed):
        home, log = fresh(folder)
        in_child(lambda: changes.apply(some(home), log), last, folder)  # noqa: B023 - run at once
        if '"applied"' not in next(log.glob("*.json")).read_text():
            return last
    raise AssertionError


def main():
    os.fsync = lambda descriptor: None  # a process that is killed leaves the system its writes
    what, folder = sys.argv[1], Path(sys.argv[2]) / "killed"
    halfway = halfway_of(folder) if what == "recovery" else 0
    points, wrong = check(what, folder, 0, halfway)
    failures = {0: wrong} if wrong else {}
    killed = 0
    for last in points:
        told, wrong = check(what, folder, last, halfway)
        killed += told is None
        if wrong:
            failures[last] = wrong
    report = {"points": points, "killed": killed, "failures": failures}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
