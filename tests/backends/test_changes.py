"""Files are changed all or not at all, and taken back byte for byte, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import runpy
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.backends import undo_log
from velollm_core.backends.changes import Change, apply, history, undo
from velollm_core.errors import DocumentError, Unavailable, UsageError

posix = pytest.mark.skipif(os.name == "nt", reason="modes, links and signals of POSIX")


KILLED = Path(__file__).with_name("killed_changes.py")
snapshot = runpy.run_path(str(KILLED))["snapshot"]


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def log(tmp_path):
    return tmp_path / "data" / "undo"


def change(path, content, **more):
    return Change(path=path, content=content, summary=f"set {path.name}", **more)


def test_what_was_applied_is_taken_back_byte_for_byte(home, log):
    (home / "kept.ini").write_bytes(b"old\r\n\x00\xff")
    (home / "gone.ini").write_bytes(b"to be removed")
    before = snapshot(home)
    changes = (
        change(home / "kept.ini", b"new", then=("restart the server",)),
        change(home / "a" / "b" / "new.ini", b"made"),
        change(home / "gone.ini", None),
    )
    applied = apply(changes, log)
    assert applied.written == changes
    assert (home / "kept.ini").read_bytes() == b"new"
    assert (home / "a" / "b" / "new.ini").read_bytes() == b"made"
    assert not (home / "gone.ini").exists()
    undone = undo(log)
    assert snapshot(home) == before
    assert [outcome.action for outcome in undone.outcomes] == ["restored", "removed", "restored"]
    assert undone.then == ("restart the server",)
    assert undo(log) is None


def test_the_last_one_is_taken_back_first(home, log):
    path = home / "config.ini"
    for content in (b"one", b"two", b"three"):
        apply([change(path, content)], log)
    assert [len(entry.outcomes) for entry in history(log)] == [1, 1, 1]
    for content in (b"two", b"one"):
        undo(log)
        assert path.read_bytes() == content
    undo(log)
    assert not path.exists()


def test_each_of_several_is_shown_as_it_will_be_when_its_turn_comes(home, log):
    path = home / "config.ini"
    path.write_bytes(b"zero")
    for content in (b"one", b"two", None):
        apply([change(path, content), change(home / "sub" / "other", b"made")], log)
    shown = [[outcome.action for outcome in entry.outcomes] for entry in history(log)]
    assert shown == [["restored"], ["restored"], ["restored", "removed"]]
    assert [[outcome.action for outcome in undo(log).outcomes] for _ in shown] == shown


def test_what_holds_already_is_neither_written_nor_recorded(home, log):
    path = home / "config.ini"
    path.write_bytes(b"same")
    inode = path.stat().st_ino
    same = change(path, b"same")
    assert apply([same, change(home / "absent", None)], log).unchanged[0] == same
    assert path.stat().st_ino == inode
    assert history(log) == ()


def test_what_needs_root_is_handed_back_and_never_done(home, log):
    asked = change(home / "system.ini", b"x", needs_root=True)
    assert apply([asked], log).for_root == (asked,)
    assert snapshot(home) == {}
    assert undo(log) is None


@posix
def test_mode_and_links_stay_as_they_are(home, log):
    (home / "dotfiles").mkdir()
    real = home / "dotfiles" / "real.ini"
    real.write_bytes(b"old")
    real.chmod(0o640)
    (home / "link.ini").symlink_to("dotfiles/real.ini")
    (home / "dangling.ini").symlink_to("nowhere/yet.ini")
    before = snapshot(home)
    apply([change(home / "link.ini", b"new"), change(home / "dangling.ini", b"made")], log)
    assert (home / "link.ini").is_symlink()
    assert (real.read_bytes(), stat.S_IMODE(real.stat().st_mode)) == (b"new", 0o640)
    assert (home / "nowhere" / "yet.ini").read_bytes() == b"made"
    undo(log)
    assert snapshot(home) == before


@posix
def test_a_removed_file_comes_back_with_its_mode_and_owner(home, log):
    path = home / "secret.ini"
    path.write_bytes(b"key")
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    owner = path.stat().st_uid, path.stat().st_gid
    before = snapshot(home)
    apply([change(path, None)], log)
    undo(log)
    assert snapshot(home) == before
    assert (path.stat().st_uid, path.stat().st_gid) == owner


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives away")
def test_the_owner_of_a_changed_file_stays(home, log):
    path = home / "theirs.ini"
    path.write_bytes(b"old")
    os.chown(path, 12345, 23456)
    apply([change(path, b"new")], log)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)
    undo(log)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@posix
def test_what_private_files_held_is_private_in_the_record(home, log):
    path = home / "secret.ini"
    path.write_bytes(b"key")
    apply([change(path, b"new")], log)
    (record,) = log.glob("*.json")
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.stat().st_mode) == 0o700
    assert json.loads(record.read_text())["schema"] == "velollm.undo/1"


def test_a_file_that_was_edited_since_is_left_alone_and_what_it_held_is_kept(home, log):
    edited, other = home / "edited.ini", home / "other.ini"
    edited.write_bytes(b"old")
    other.write_bytes(b"old")
    apply([change(edited, b"new"), change(other, b"new"), change(home / "made", b"x")], log)
    edited.write_bytes(b"the user's own")
    (home / "made").write_bytes(b"the user's too")
    shown = history(log)[0]
    undone = undo(log)
    assert shown.outcomes == undone.outcomes
    assert [outcome.action for outcome in undone.outcomes] == ["edited", "restored", "edited"]
    assert edited.read_bytes() == b"the user's own"
    assert (home / "made").read_bytes() == b"the user's too"
    assert other.read_bytes() == b"old"
    assert undone.outcomes[0].kept_as.read_bytes() == b"old"
    assert undone.outcomes[2].kept_as is None
    assert undo(log) is None


def test_a_file_whose_folder_is_gone_is_not_brought_back_by_force(home, log):
    (home / "sub").mkdir()
    path = home / "sub" / "config.ini"
    path.write_bytes(b"old")
    apply([change(path, None)], log)
    path.parent.rmdir()
    (outcome,) = undo(log).outcomes
    assert outcome.action == "edited"
    assert outcome.kept_as.read_bytes() == b"old"


def test_a_file_whose_folder_has_given_way_to_a_file_is_left_alone(home, log):
    path = home / "sub" / "config.ini"
    path.parent.mkdir()
    path.write_bytes(b"old")
    apply([change(path, b"new"), change(home / "sub" / "made", b"x")], log)
    path.unlink()
    (home / "sub" / "made").unlink()
    path.parent.rmdir()
    path.parent.write_bytes(b"the user's own")
    edited, made = undo(log).outcomes
    assert (edited.action, made.action) == ("edited", "unchanged")
    assert edited.kept_as.read_bytes() == b"old"
    assert path.parent.read_bytes() == b"the user's own"
    assert undo(log) is None


def test_a_directory_in_which_something_else_lies_now_stays(home, log):
    apply([change(home / "a" / "b" / "c.ini", b"x")], log)
    (home / "a" / "mine").write_bytes(b"y")
    undo(log)
    assert set(snapshot(home)) == {"a", str(Path("a", "mine"))}


def test_two_changes_of_one_file_are_refused(home, log):
    with pytest.raises(UsageError, match="two changes mean the same file"):
        apply([change(home / "x", b"1"), change(home / "sub" / ".." / "x", b"2")], log)
    assert snapshot(home) == {}


@pytest.mark.parametrize("kind", ["directory", "below a file", "long name"])
def test_what_cannot_be_written_is_named_and_nothing_is_changed(home, log, kind):
    (home / "first.ini").write_bytes(b"old")
    path = {
        "directory": home / "folder",
        "below a file": home / "first.ini" / "x",
        "long name": home / "made" / ("x" * 300),
    }[kind]
    (home / "folder").mkdir()
    before = snapshot(home)
    with pytest.raises(UsageError) as caught:
        apply([change(home / "first.ini", b"new"), change(path, b"x")], log)
    assert str(path) in caught.value.message
    assert "othing was changed" in str(caught.value)
    assert snapshot(home) == before
    assert history(log) == ()


@posix
def test_a_write_protected_file_is_not_replaced(home, log):
    path = home / "pinned.ini"
    path.write_bytes(b"old")
    path.chmod(0o444)
    root = os.geteuid() == 0  # for whom nothing is protected
    if root:
        os.setreuid(65534, -1)
    try:
        with pytest.raises(UsageError, match="it is write-protected"):
            apply([change(path, b"new")], log)
    finally:
        if root:
            os.setreuid(0, -1)
    assert path.read_bytes() == b"old"


@posix
def test_a_disk_that_fills_in_the_middle_leaves_everything_as_it_was(home, log):
    """The limit on a file's size is met as a full disk is: by a write that fails."""
    import resource

    (home / "first.ini").write_bytes(b"old")
    before = snapshot(home)
    changes = [
        change(home / "first.ini", b"new"),
        change(home / "a" / "second.ini", b"new"),
        change(home / "large.ini", bytes(1 << 20)),
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(UsageError, match=r"large\.ini cannot be written: File too large"):
            apply(changes, log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert snapshot(home) == before
    assert history(log) == ()


def test_a_file_that_cannot_be_moved_into_place_has_the_others_taken_back(home, log, monkeypatch):
    (home / "first.ini").write_bytes(b"old")
    before = snapshot(home)
    replace = Path.replace

    def refuse(self, target):
        if Path(target).name == "second.ini":
            raise PermissionError(13, "Permission denied", str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UsageError, match=r"second\.ini cannot be written: Permission denied"):
        apply([change(home / "first.ini", b"new"), change(home / "second.ini", b"new")], log)
    assert snapshot(home) == before
    assert history(log) == ()


@posix
def test_a_disk_that_is_full_when_something_is_taken_back_names_the_file(home, log):
    import resource

    path, small = home / "large.ini", home / "small.ini"
    path.write_bytes(bytes(1 << 20))
    before = snapshot(home)
    apply([change(path, b"new"), change(small, b"x")], log)
    (record,) = log.glob("*.json")
    undoing = record.read_bytes().replace(b'"applied"', b'"undoing"')
    record.write_bytes(undoing)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(UsageError, match=r"large\.ini cannot be written: File too large"):
            undo(log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"new"
    undo(log)
    assert snapshot(home) == before


def test_a_file_that_cannot_be_restored_is_named_and_can_be_later(home, log, monkeypatch):
    path = home / "config.ini"
    path.write_bytes(b"old")
    apply([change(path, b"new")], log)
    replace = Path.replace

    def refuse(self, target):
        if Path(target) == path:
            raise PermissionError(13, "Permission denied", str(path))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(UsageError, match=r"config\.ini cannot be written"):
            undo(log)
    assert history(log)[0].cut_short
    assert undo(log).cut_short
    assert path.read_bytes() == b"old"


HOLDER = """
import sys
from pathlib import Path
from velollm_core.backends.undo_log import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_no_two_change_files_at_once(home, log):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"locked\n"
        for action in (lambda: apply([change(home / "x", b"1")], log), lambda: undo(log)):
            with pytest.raises(Unavailable, match="another velollm is changing files"):
                action()
        assert snapshot(home) == {}
        holder.kill()  # which releases it
    apply([change(home / "x", b"1")], log)
    assert (home / "x").read_bytes() == b"1"


def test_a_folder_that_cannot_be_made_is_named(home):
    (home / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="nothing could be undone"):
        apply([change(home / "x", b"1")], home / "file" / "undo")
    assert set(snapshot(home)) == {"file"}


def test_a_damaged_record_is_named_with_the_way_on(home, log):
    apply([change(home / "x", b"1")], log)
    apply([change(home / "x", b"2")], log)
    record = max(log.glob("*.json"))
    record.write_text("{")
    for action in (history, undo):
        with pytest.raises(DocumentError, match=record.name) as caught:
            action(log)
        assert "Move it away" in caught.value.hint
    record.rename(home / record.name)
    (home / "x").write_bytes(b"1")
    undo(log)
    assert not (home / "x").exists()


def test_a_folder_in_which_nothing_can_be_locked_is_told_from_one_that_is_locked(
    home, log, monkeypatch
):
    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(undo_log, "_lock", refuse)
    with pytest.raises(Unavailable, match="cannot be locked: No locks available"):
        apply([change(home / "x", b"1")], log)
    assert snapshot(home) == {}


NAMES = ("a", "b", "c", "d/e", "d/f/g", "link")
CONTENTS = st.one_of(st.none(), st.binary(max_size=8), st.just(b"same"))
SEQUENCES = st.lists(st.dictionaries(st.sampled_from(NAMES), CONTENTS, max_size=4), max_size=5)


@settings(max_examples=25, deadline=None)
@given(start=st.dictionaries(st.sampled_from(NAMES[:5]), CONTENTS), sequence=SEQUENCES)
def test_any_sequence_of_changes_then_undo_leaves_what_was_there(start, sequence):
    with tempfile.TemporaryDirectory() as name:
        home, log = Path(name, "home"), Path(name, "undo")
        home.mkdir()
        for path, content in start.items():
            if content is not None:
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                (home / path).write_bytes(content)
        if os.name != "nt":
            (home / "link").symlink_to("d/linked")
        states = [snapshot(home)]
        for step in sequence:
            changes = [change(home / path, content) for path, content in step.items()]
            if apply(changes, log).written:
                states.append(snapshot(home))
            for path, content in step.items():
                assert (home / path).exists() == (content is not None)
                assert content is None or (home / path).read_bytes() == content
        for state in reversed(states[:-1]):
            assert undo(log) is not None
            assert snapshot(home) == state
        assert undo(log) is None


@posix
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to be killed are forked")
@pytest.mark.parametrize("what", ["apply", "undo", "recovery", "apply, then another"])
def test_killed_between_any_two_steps_nothing_is_lost(what, tmp_path):
    """The process is killed wherever the disk is not as it was a line, or a call, before."""
    done = subprocess.run(
        [sys.executable, str(KILLED), what, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == {}
    assert report["killed"] == len(report["points"]) > 10
