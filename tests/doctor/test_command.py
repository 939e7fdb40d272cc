"""``velollm doctor`` as a user runs it, on whatever machine this is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from velollm_core.doctor.spec import KIND, MAJOR, Diagnosis
from velollm_core.documents import loads


def findings(told: Diagnosis):
    return {entry.code: entry.findings for entry in told.checks if entry.findings}


def test_one_document_on_standard_output_and_an_exit_code_that_says_whether_speed_is_lost(velollm):
    done = velollm("doctor", "--json")
    told = loads(done.stdout, KIND, MAJOR, Diagnosis, "standard output")
    assert json.loads(done.stdout)["schema"] == "velollm.doctor/1"
    assert {"swapping", "broken-plugins"} <= {entry.code for entry in told.checks}
    speed = any(finding.costs_speed for found in findings(told).values() for finding in found)
    assert told.costs_speed == speed
    assert done.returncode == (1 if speed else 0)
    assert "Traceback" not in done.stderr


def test_people_get_a_summary_at_any_width(velollm):
    done = velollm("doctor", "-v", env={"COLUMNS": "40"})
    assert done.returncode in {0, 1}
    assert " checks, " in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert "\x1b" not in done.stdout


def test_help_shows_an_example(velollm):
    done = velollm("doctor", "--help")
    assert "Example: velollm doctor" in done.stdout


def test_a_script_and_a_variable_are_looked_at_and_not_run(velollm, tmp_path):
    script = tmp_path / "run.sh"
    script.write_text(f"touch {tmp_path}/ran\nexport LLAMA_ARG_TREADS=4\n")
    done = velollm("doctor", "--json", "--script", str(script), env={"LLAMA_ARG_CTX_SIZE": "32k"})
    found = findings(loads(done.stdout, KIND, MAJOR, Diagnosis, "x"))
    if shutil.which("llama-server") is None:
        pytest.importorskip("xllamacpp")
    assert "LLAMA_ARG_TREADS" in found["llamacpp-unread-variables"][0].statement
    assert "llamacpp-malformed-values" in found
    assert not (tmp_path / "ran").exists()


def test_neither_a_key_nor_the_home_is_in_the_document(velollm, tmp_path):
    home = tmp_path / "somebody"
    config = home / ".config" / "llama.cpp" / "config.ini"
    config.parent.mkdir(parents=True)
    config.write_text("[*]\napi-key = sk-SECRET-1\nctx-size = 8192\n", encoding="utf-8")
    script = home / "run.sh"
    script.write_text(
        f"llama-server --api-key=sk-SECRET-2 -m {home}/m.gguf --nonsense sk-SECRET-3\n"
        f"llama-server --api-key -sk-SECRET-4 --models-dir={home} -t 9999\n"
        f"export LLAMA_ARG_NONSENSE=sk-SECRET-5\n",
        encoding="utf-8",
    )
    title = f"app --token=sk-SECRET-6 {home}"
    code = "while True: pass"
    with subprocess.Popen([title, "-c", code], executable=sys.executable) as busy:
        try:
            time.sleep(0.2)
            done = velollm(
                "doctor",
                "--json",
                "--script",
                str(script),
                env={
                    "HOME": f"{home}/",
                    "XDG_CONFIG_HOME": "",
                    "LLAMA_API_KEY": "sk-SECRET-7",
                    "LLAMA_ARG_CTX_SIZE": "4096",
                    "VELOLLM_DATA_DIR": f"{home}/run.sh/data",
                },
            )
        finally:
            busy.kill()
    found = findings(loads(done.stdout, KIND, MAJOR, Diagnosis, "x"))
    assert "~/run.sh" in found["unwritable-folders"][0].evidence
    assert "SECRET" not in done.stdout
    assert str(home) not in done.stdout
    if os.name == "posix" and (shutil.which("llama-server") or find_spec("xllamacpp")):
        assert found["llamacpp-unread-variables"][0].evidence.startswith("~/run.sh, line 3")
        assert any(
            "--api-key" in entry.statement for entry in found["llamacpp-overridden-settings"]
        )


def test_a_script_that_is_a_program_is_not_looked_at_and_a_long_one_in_part(velollm, tmp_path):
    program, long = tmp_path / "a.out", tmp_path / "long.sh"
    program.write_bytes(b"\x7fELF\0\nexport LLAMA_ARG_TREADS=4\n")
    long.write_text("# x\n" * 300_000 + "export LLAMA_ARG_TREADS=4\n", encoding="utf-8")
    done = velollm("doctor", "--json", "--script", str(program), "--script", str(long))
    assert "LLAMA_ARG_TREADS" not in done.stdout
    told = " ".join(done.stderr.split())
    assert "a.out is a program, not a script" in told
    assert "only its first MiB" in told


def test_a_script_that_is_not_there_is_wrong_usage(velollm, tmp_path):
    done = velollm("doctor", "--script", str(tmp_path / "none.sh"))
    assert done.returncode == 2
    assert done.stdout == ""


def test_an_engine_that_is_named_and_not_there_is_unavailable(velollm, tmp_path):
    done = velollm("doctor", "-X", f"server={tmp_path}/llama-server")
    assert done.returncode == 3
    assert "not there" in done.stderr


def test_a_journal_that_cannot_be_written_is_a_remark(velollm, tmp_path):
    (tmp_path / "file").touch()
    done = velollm("doctor", "--json", env={"VELOLLM_DATA_DIR": str(tmp_path / "file" / "data")})
    (found,) = findings(loads(done.stdout, KIND, MAJOR, Diagnosis, "x"))["unwritable-folders"]
    assert "a file stands where a folder is wanted" in found.evidence
    assert not found.costs_speed


def test_another_server_that_runs_is_seen(velollm, tmp_path):
    if os.name != "posix":
        pytest.skip("a copy of the interpreter needs its libraries beside it")
    # A real process that bears the name, keeps a processor busy, and nothing else.
    code = "import time\nwhile True: pass"
    with subprocess.Popen(["llama-server", "-c", code], executable=sys.executable) as server:
        try:
            time.sleep(0.2)
            done = velollm("doctor", "--json")
        finally:
            server.kill()
    found = findings(loads(done.stdout, KIND, MAJOR, Diagnosis, "x"))
    assert f"llama-server (process {server.pid})" in found["server-at-work"][0].evidence
    assert done.returncode == 1
