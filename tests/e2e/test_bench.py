"""The main job on a real model: what a user gets from ``velollm bench``."""

from __future__ import annotations

import csv
import getpass
import io
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from velollm_core.documents import read
from velollm_core.experiment.spec import BenchmarkResult

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
EMBEDDED = ("--backend", "llamacpp", "-X", "engine=embedded", "--model", "demo")
SHORT = ("bench", "--force", "--workload", "short", "--launches", "1", "--requests", "2")
NATIVE = os.environ.get("VELOLLM_TEST_LLAMA_SERVER") or shutil.which("llama-server")


def bench(velollm, *words: str, engine=EMBEDDED, **more) -> dict:
    done = velollm(*engine, *SHORT, *words, "--json", timeout=280, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def measured(result: dict, phase: int = 0) -> list[dict]:
    return [
        sample
        for trial in result["trials"]
        for sample in trial["phases"][phase]["samples"]
        if not sample["warmup"]
    ]


def filled(value: object, path: str = "") -> set[str]:
    """Paths of a document that hold something; places in lists do not count."""
    if isinstance(value, dict):
        return set().union(
            *(filled(entry, f"{path}.{key}") for key, entry in value.items()), {path}
        )
    if isinstance(value, list):
        return set().union(*(filled(entry, f"{path}[]") for entry in value), {path})
    return {path} if value is not None else set()


def test_a_benchmark_ends_with_tables_and_is_kept(velollm, tmp_path):
    done = velollm(
        *EMBEDDED, "benchmark", *SHORT[1:], "--launches", "2", "-o", "r.json", timeout=280
    )
    assert done.returncode == 0, done.stderr
    for word in ("first token", "prefill", "decode", "short", "2 launches", "xllamacpp"):
        assert word in done.stdout + done.stderr
    assert "launch 2 of 2: done" in done.stderr
    written = read(tmp_path / "r.json", "benchmark", 1, BenchmarkResult)
    assert written.complete
    assert len(written.trials) == 2
    assert f"kept as run {written.run}" in done.stderr
    shown = velollm("results", "show", "last")
    assert shown.stdout == done.stdout
    listed = json.loads(velollm("results", "--json").stdout)
    assert [(run["id"], run["trials"], run["complete"]) for run in listed] == [
        (written.run, 2, True)
    ]
    table = velollm("results", "show", written.run[:13], "--format", "csv").stdout
    (row,) = csv.DictReader(io.StringIO(table))
    assert row["workload"] == "short"
    assert "| short |" in velollm("results", "show", "last", "--format", "markdown").stdout
    assert velollm("results", "remove", written.run, "--yes").returncode == 0
    assert json.loads(velollm("results", "--json").stdout) == []


def test_what_the_client_saw_fits_what_the_server_said(velollm):
    samples = measured(bench(velollm, "--requests", "4"))
    assert len(samples) == 4
    for sample in samples:
        assert sample["error"] is None
        assert sample["output_tokens"] >= 2
        assert sum(sample["event_tokens"]) <= sample["output_tokens"]
        assert sample["first_token_ms"] > sample["timings"]["prompt_ms"]
        assert sample["event_ms"] == sorted(sample["event_ms"])
        assert sample["total_ms"] >= sample["event_ms"][-1]


def test_a_stranger_finds_no_name_of_host_user_or_folder_and_no_text(velollm):
    text = json.dumps(bench(velollm))
    for private in (socket.gethostname(), str(Path.home()), f"/{getpass.getuser()}/", ".gguf"):
        assert private not in text
    assert '"text": null' in text


def test_a_knob_is_set_read_back_and_stands_in_the_result(velollm):
    result = bench(velollm, "--set", "slots=2,threads=1", "--set", "cache_type_k=q8_0")
    (trial,) = result["trials"]
    assert trial["effective"]["slots"] == 2
    assert trial["effective"]["cache_type_k"] == "q8_0"
    assert trial["mismatches"] == []
    assert result["arms"][0]["origins"]["slots"] == "--set"


def test_the_users_own_settings_are_measured_and_the_baseline_removes_them(velollm):
    own = {"LLAMA_ARG_CTX_SIZE": "2048"}
    current = bench(velollm, env=own)
    assert current["arms"][0]["config"]["context"] == 2048
    assert "LLAMA_ARG_CTX_SIZE" in current["arms"][0]["origins"]["context"]
    baseline = bench(velollm, "--baseline", env=own)
    assert baseline["arms"][0]["name"] == "defaults"
    assert baseline["arms"][0]["config"]["context"] != 2048
    assert "context" in [entry["name"] for entry in baseline["arms"][0]["left_out"]]


def test_several_clients_at_once_and_ones_own_prompts(velollm, tmp_path):
    (tmp_path / "mine.txt").write_text("Name three rivers.\nWhat is a prime number?\n")
    done = velollm(
        *EMBEDDED, "bench", "--force", "--launches", "1", "--requests", "2", "--concurrency", "1,3",
        "--prompts", "mine.txt", "--max-tokens", "12", "--keep-text", "--json", timeout=280,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert [entry["concurrency"] for entry in result["workloads"]] == [1, 3]
    assert len(measured(result, 1)) == 3
    assert all(sample["text"] for sample in measured(result))


@pytest.mark.skipif(NATIVE is None, reason="no llama-server: name one in VELOLLM_TEST_LLAMA_SERVER")
def test_a_native_server_gives_the_same_shape_of_result(velollm):
    native = bench(
        velollm, engine=("--backend", "llamacpp", "-X", f"server={NATIVE}", "--model", "demo")
    )
    embedded = bench(velollm)
    assert native["arms"][0]["engine"]["kind"] == "binary"
    known = {".arms[].engine.build", ".arms[].engine.version"}
    assert filled(native) - known == filled(embedded) - known
