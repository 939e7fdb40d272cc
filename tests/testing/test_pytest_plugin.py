"""What pytest offers to authors, and that it leaves everybody else alone."""

from __future__ import annotations

import json
import re
import sys
import textwrap

import psutil
import pytest

from velollm_core.backends.http import HttpClient
from velollm_core.testing.processes import runs
from velollm_core.testing.raw_server import answer


@pytest.fixture
def run(tmp_path, run_suite):
    """The report on one file of tests."""

    def of(body, *words):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(body), encoding="utf-8")
        return run_suite(tmp_path, "test_it.py", *words, every_plugin=True)

    return of


def test_nothing_of_velollm_is_imported_before_it_is_asked_for(run):
    report = run("""
        import sys

        def test_it():
            found = {name for name in sys.modules if name.startswith("velollm_core")}
            assert found <= {
                "velollm_core", "velollm_core.testing", "velollm_core.testing.pytest_plugin"
            }
            assert not {"psutil", "rich", "click"} & set(sys.modules)
        """)
    assert report.failed == set(), report.output


def test_a_run_that_has_nothing_to_do_with_velollm_says_nothing_of_it(run):
    report = run("def test_it():\n    pass\n")
    assert "velollm" not in report.output.lower()


def test_it_can_be_switched_off(run):
    body = "def test_it(velollm):\n    pass\n"
    assert run(body).passed == {"test_it"}
    assert "fixture 'velollm' not found" in run(body, "-p", "no:velollm").output


def test_the_command_runs_in_folders_of_its_own(velollm, velollm_environ, tmp_path):
    done = velollm("plugins", "--json")
    assert done.returncode == 0, done.stderr
    assert "core-workloads" in {row["name"] for row in json.loads(done.stdout)}
    for name in ("VELOLLM_DATA_DIR", "VELOLLM_CONFIG_DIR"):
        assert velollm_environ[name].startswith(str(tmp_path))


def test_a_test_that_leaves_a_process_fails_and_the_process_is_ended(run):
    report = run("""
        import subprocess, sys

        def test_it(no_process_left):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        """)
    assert report.failed == {"test_it"}
    assert "still running" in report.output
    number = int(re.search(r"still running: (\d+) ", report.output)[1])
    # One that ended with nobody to wait for it can stay in the table for a while.
    assert not psutil.pid_exists(number) or not runs(psutil.Process(number))


def test_a_test_that_ends_what_it_starts_passes(run):
    report = run("""
        import subprocess, sys

        def test_it(no_process_left):
            subprocess.run([sys.executable, "-c", ""], check=True)
        """)
    assert report.failed == set(), report.output


def test_places_are_places_of_their_own(velollm_place):
    first, second = velollm_place(), velollm_place(5.0, COLOUR="blue")
    assert first.directory != second.directory
    assert second.environ["COLOUR"] == "blue"
    assert 0 < second.remaining_s() <= 5
    child = second.start([sys.executable, "-c", "import os; print(os.environ['COLOUR'])"])
    while child.exit_code() is None:
        pass
    assert child.log_tail() == "blue"
    child.stop()


def test_a_raw_server_says_what_it_is_told(velollm_raw_server):
    server = velollm_raw_server(lambda connection, _: answer(connection, b'{"ok": true}'))
    assert HttpClient(server.url).get("/") == {"ok": True}
    assert len(server.requests) == 1
