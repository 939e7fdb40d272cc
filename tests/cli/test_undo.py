"""``velollm undo``: what a user sees of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from velollm_core.backends.changes import Change, apply


@pytest.fixture
def applied(environ, tmp_path):
    """A file that was changed, another that was made, and how to apply more."""

    folder = Path(environ["VELOLLM_DATA_DIR"]) / "undo"

    def more(name, content, **rest):
        path = tmp_path / name
        change = Change(path=path, content=content, summary=f"set {name}", **rest)
        apply([change], folder)
        return path

    return more


def test_what_was_applied_last_is_taken_back_and_what_to_restart_is_said(velollm, applied):
    path = applied("config.ini", b"new", then=("restart llama-server",))
    done = velollm("undo")
    assert done.returncode == 0
    assert not path.exists()
    assert f"{path} (set config.ini): removed" in done.stdout
    assert "It takes effect after:\n  restart llama-server" in done.stdout


def test_a_command_on_a_file_that_is_gone_is_not_named(velollm, applied, tmp_path):
    command = f"llama-server --models-preset {tmp_path / 'models.ini'}"
    applied("models.ini", b"new", then=(command,))
    applied("models.ini", b"newer", then=(command,))
    assert f"It takes effect after:\n  {command}" in velollm("undo").stdout
    assert "It takes effect" not in velollm("undo").stdout


def test_nothing_to_take_back_is_said_in_a_sentence(velollm):
    done = velollm("undo")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to take back" in done.stderr
    assert json.loads(velollm("undo", "--json").stdout) == []


def test_a_dry_run_touches_nothing(velollm, applied):
    applied("config.ini", b"first")
    path = applied("config.ini", b"second")
    done = velollm("undo", "--dry-run")
    assert done.returncode == 0
    assert f"{path} (set config.ini): to restore" in done.stdout
    assert path.read_bytes() == b"second"
    assert len(json.loads(velollm("undo", "--list", "--json").stdout)) == 2


def test_the_list_shows_the_newest_first(velollm, applied):
    applied("one.ini", b"1")
    applied("two.ini", b"2")
    shown = velollm("undo", "--list").stdout
    assert shown.index("two.ini") < shown.index("one.ini")
    velollm("undo")
    assert "two.ini" not in velollm("undo", "--list").stdout


def test_a_file_that_was_edited_since_is_named_and_left_alone(velollm, applied):
    applied("config.ini", b"first")
    path = applied("config.ini", b"second")
    path.write_bytes(b"the user's own")
    done = velollm("undo")
    assert done.returncode == 1
    assert "edited since, left alone; what it held before is kept in" in done.stdout
    assert path.read_bytes() == b"the user's own"


def test_json_says_what_became_of_each_file(velollm, applied):
    path = applied("config.ini", b"new")
    (undone,) = json.loads(velollm("undo", "--json").stdout)
    assert undone["outcomes"] == [{"path": str(path), "action": "removed", "kept_as": None}]
    assert undone["cut_short"] is False


def test_help_has_an_example(velollm):
    done = velollm("undo", "--help")
    assert done.returncode == 0
    assert "Example: velollm undo" in done.stdout
