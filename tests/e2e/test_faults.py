"""Killed, full, cut or silent: a clear message, the right exit code, nothing lost, nothing left."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from velollm_core.testing.raw_server import RawServer, answer

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals and /proc"),
]
BENCH = ("--backend", "llamacpp", "-X", "engine=embedded", "--model", "demo", "bench", "--force")
SHORT = (*BENCH, "--workload", "short", "--requests", "2")
LONG = (*BENCH, "--workload", "short", "--requests", "400", "--launches", "2")


def samples(document: dict) -> list[dict]:
    return [
        s for trial in document["trials"] for phase in trial["phases"] for s in phase["samples"]
    ]


def last_run(velollm) -> dict:
    return json.loads(velollm("results", "show", "last", "--format", "json").stdout)


def test_the_server_killed_in_mid_run_is_an_outcome_with_its_signal(start, velollm):
    running = start(*LONG)
    server = running.working_server()
    server.kill()
    again = running.server_after(server)
    time.sleep(1.0)
    again.kill()
    code, _, err = running.end()
    assert code == 3
    assert "SIGKILL" in err
    running.nothing_left()
    result = last_run(velollm)
    assert [trial["failure"]["kind"] for trial in result["trials"]] == ["crash", "crash"]
    assert samples(result), "what was measured before is kept"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_mid_run_keeps_what_was_measured(start, velollm, number):
    running = start(*LONG, "-o", "partial.json")
    running.working_server()
    running.process.send_signal(number)
    code, out, err = running.end()
    assert code == 130
    assert "what was measured until then is kept" in err
    assert "--resume" in err
    assert "Traceback" not in err
    assert "short" in out
    running.nothing_left()
    result = last_run(velollm)
    assert result["complete"] is False
    assert result["trials"][-1]["failure"]["kind"] == "interrupted"
    assert samples(result)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_moment_leaves_no_process_and_a_whole_journal(start, velollm, number, seed):
    running = start(*SHORT, "--launches", "3")
    running.catches_signals()
    deadline = time.monotonic() + random.Random(f"{number}/{seed}").uniform(0.0, 6.0)
    while time.monotonic() < deadline and running.process.poll() is None:
        running.look()
        time.sleep(0.02)
    running.process.send_signal(number)
    code, _, err = running.end()
    assert code in {0, -signal.SIGKILL if number == signal.SIGKILL else 130}
    assert "Traceback" not in err
    running.nothing_left()
    listed = velollm("results", "list", "--json")
    assert listed.returncode == 0
    for run in json.loads(listed.stdout):
        shown = velollm("results", "show", run["id"], "--format", "json")
        assert shown.returncode == 0
        assert len(json.loads(shown.stdout)["trials"]) == run["trials"]


def test_a_run_killed_by_sigkill_goes_on_with_resume(start, velollm):
    running = start(*SHORT, "--launches", "3")
    running.server_after(running.server())
    running.process.kill()
    running.end()
    running.nothing_left()
    before = last_run(velollm)
    assert len(before["trials"]) >= 1
    done = velollm(*SHORT, "--launches", "3", "--resume", before["run"], timeout=240)
    assert done.returncode == 0, done.stderr
    after = last_run(velollm)
    assert after["run"] == before["run"]
    assert after["complete"]
    assert after["trials"][: len(before["trials"])] == before["trials"]
    assert len(after["trials"]) == 3


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of a few kilobytes."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_for_the_result_costs_neither_the_table_nor_the_run(velollm, tiny_disk):
    done = velollm(*SHORT, "--launches", "1", "-o", str(tiny_disk / "result.json"))
    assert done.returncode == 2
    assert "short" in done.stdout
    assert "result.json cannot be written: No space left on device" in done.stderr
    assert list(tiny_disk.iterdir()) == []
    run = last_run(velollm)["run"]
    exported = velollm("results", "export", run, "-o", "elsewhere.json")
    assert exported.returncode == 0


def test_a_full_disk_for_the_journal_costs_neither_the_table_nor_the_file(
    velollm, tiny_disk, tmp_path
):
    (tiny_disk / "ballast").write_bytes(b"x" * 8192)
    done = velollm(
        *SHORT, "--launches", "1", "-o", "kept.json", env={"VELOLLM_DATA_DIR": str(tiny_disk)}
    )
    assert done.returncode == 2
    assert "the journal" in done.stderr
    assert "VELOLLM_DATA_DIR" in done.stderr
    assert "short" in done.stdout
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept["complete"]
    assert samples(kept)


def test_a_model_file_cut_in_half_is_said_so_before_anything_is_started(velollm, start, tmp_path):
    shown = velollm("models", "show", "demo", "--json", timeout=600).stdout
    whole = Path(json.loads(shown)["path"]).read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    done = velollm("--backend", "llamacpp", "--model", "half.gguf", "bench", "--force")
    assert done.returncode == 3
    assert "half.gguf" in done.stderr
    assert "cut short" in done.stderr


@contextlib.contextmanager
def double(chat):
    """A server that passes for llama-server until it is asked for an answer."""

    def behave(connection, request):
        if b"/props" in request:
            answer(connection, b'{"default_generation_settings": {"n_ctx": 512}, "total_slots": 1}')
        elif b"/v1/models" in request:
            answer(connection, b'{"data": [{"id": "double"}]}')
        elif b"/chat" in request:
            chat(connection)
        else:
            answer(connection, b'{"error": {"message": "not here"}}', "404 Not Found")

    server = RawServer(behave)
    yield server.url
    server.close()


ATTACHED = ("--backend", "llamacpp", "bench", "--force", "--workload", "short", "--requests", "2")


def test_a_server_that_accepts_and_never_answers_is_given_up(velollm):
    silent = RawServer(lambda connection, request: time.sleep(60))
    started = time.monotonic()
    done = velollm(*ATTACHED, "-X", f"url={silent.url}")
    silent.close()
    assert done.returncode == 3
    assert "gave no whole answer in 5 seconds" in done.stderr
    assert time.monotonic() - started < 40


def test_a_request_that_is_never_answered_fails_after_its_timeout(velollm):
    with double(lambda connection: time.sleep(60)) as url:
        done = velollm(*ATTACHED, "-X", f"url={url}", "--request-timeout", "1")
    assert done.returncode == 3
    assert "silent for 1 seconds" in done.stderr
    assert last_run(velollm)["trials"][0]["failure"]["kind"] == "timeout"


def test_a_server_that_stops_in_the_middle_of_a_line_loses_nothing_that_came_before(velollm):
    def chat(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for word in (b"one", b"two"):
            time.sleep(0.05)
            connection.sendall(b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % word)
        connection.sendall(b'data: {"choices": [{"del')

    with double(chat) as url:
        done = velollm(*ATTACHED, "-X", f"url={url}", "--warmup", "0")
    assert done.returncode == 3
    assert "in the middle of a line" in done.stderr
    (trial,) = last_run(velollm)["trials"]
    assert trial["failure"]["kind"] == "crash"
    assert len(samples({"trials": [trial]})[0]["event_ms"]) == 2
