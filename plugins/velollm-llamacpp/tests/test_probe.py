"""Which engine is found, and what is said of one that cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from velollm_llamacpp import engines

from velollm_core.config import Config
from velollm_core.errors import Unavailable, UsageError

LIKE_LLAMA_SERVER = """
import sys
if "--help" in sys.argv:
    print("-c,    --ctx-size N                     size (default: 4096)")
    print("--port PORT                             port to listen (default: 8080)")
    print("--list-devices                          print devices")
if "--version" in sys.argv:
    print("version: 4242 (abc1234)", file=sys.stderr)
if "--list-devices" in sys.argv:
    print("Available devices:\\n  CUDA0: NVIDIA H100 (81000 MiB, 80000 MiB free)\\n  BLAS: x")
if "-m" in sys.argv:
    print("system_info: n_threads = 4 / 8 | CPU : AVX2 = 1 | AVX512 = 0 | ", file=sys.stderr)
"""


def test_a_server_that_is_named_is_the_only_one(backend, program):
    path = program(LIKE_LLAMA_SERVER)
    (found,) = backend.probe({"server": str(path)}, os.environ)
    assert (found.kind, found.location) == ("binary", str(path))
    assert (found.version, found.build) == ("4242", "b4242-abc1234")
    assert found.cpu_features == ("AVX2",)


@pytest.mark.parametrize(
    ("told", "reads"),
    [
        ("4242 (abc1234)", False),
        ("10397 (abc1234)", False),
        ("0.2.0 (build 10398, commit abc1234)", True),
        ("0.6.0-dev (build 0, commit unknown)", True),
        ("nightly", True),
    ],
)
def test_builds_before_configuration_files_are_known(backend, program, told, reads):
    path = program(LIKE_LLAMA_SERVER.replace("4242 (abc1234)", told))
    (found,) = backend.probe({"server": str(path)}, os.environ)
    assert engines.build_of(found).flags.reads_files is reads


def test_the_users_server_on_path_comes_before_the_wheel(backend, program):
    path = program(LIKE_LLAMA_SERVER)
    found = backend.probe({}, {"PATH": str(path.parent)})
    assert [entry.kind for entry in found] == ["binary", "wheel"]
    assert [
        entry.kind
        for entry in backend.probe({"server": "llama-server"}, {"PATH": str(path.parent)})
    ] == ["binary"]


def test_without_a_server_the_wheel_is_used(backend):
    (found,) = backend.probe({}, {"PATH": ""})
    assert (found.kind, found.location) == ("wheel", "xllamacpp")
    assert found.version == engines.wheel_version()
    assert found.cpu_features


def test_a_server_is_examined_offline_and_without_what_the_user_has_set_for_it(
    backend, program, tmp_path, monkeypatch
):
    more = f"""
if "--help" in sys.argv:
    print("--offline                               no network")
if "-m" in sys.argv:
    import json, os
    with open({str(tmp_path / "seen")!r}, "w") as file:
        json.dump([sys.argv, dict(os.environ)], file)
"""
    monkeypatch.setenv("AIP_MODE", "PREDICTION")
    monkeypatch.setenv("LLAMA_ARG_THREADS", "3")
    backend.probe({"server": str(program(LIKE_LLAMA_SERVER + more))}, os.environ)
    argv, environ = json.loads((tmp_path / "seen").read_text())
    assert "--offline" in argv
    assert not {"AIP_MODE", "LLAMA_ARG_THREADS"} & set(environ)
    assert environ["GGML_NO_BACKTRACE"] == "1"


def test_the_wheel_can_be_asked_for_although_there_is_a_server(backend, program):
    path = program(LIKE_LLAMA_SERVER)
    found = backend.probe({"engine": "embedded"}, {"PATH": str(path.parent)})
    assert [entry.kind for entry in found] == ["wheel"]


def test_options_that_contradict_each_other_or_are_unknown_values_are_wrong_usage(backend):
    with pytest.raises(UsageError, match="exclude"):
        backend.probe({"engine": "embedded", "server": "x"}, {})
    with pytest.raises(UsageError, match="cuda"):
        backend.probe({"engine": "cuda"}, {})


def test_a_server_that_is_not_there(backend, tmp_path):
    with pytest.raises(Unavailable, match="not there"):
        backend.probe({"server": str(tmp_path / "llama-server")}, os.environ)


def test_a_file_that_may_not_be_executed(backend, program):
    path = program(LIKE_LLAMA_SERVER)
    path.chmod(0o644)
    with pytest.raises(Unavailable, match="executed"):
        backend.probe({"server": str(path)}, os.environ)


def test_another_program(backend):
    with pytest.raises(Unavailable, match="no llama-server"):
        backend.probe({"server": sys.executable}, os.environ)


def test_a_program_that_hangs_is_ended_and_named(backend, program, monkeypatch):
    monkeypatch.setattr(engines, "_TIMEOUT_S", 0.5)
    path = program("import time\ntime.sleep(600)")
    with pytest.raises(Unavailable, match="did not answer"):
        backend.probe({"server": str(path)}, os.environ)


def test_a_broken_server_on_path_is_named_and_passed_over(backend, program, caplog):
    path = program("import sys\nsys.exit(3)")
    found = backend.probe({}, {"PATH": str(path.parent)})
    assert [entry.kind for entry in found] == ["wheel"]
    assert str(path) in caplog.text


def test_a_wheel_that_does_not_run_here_is_said_with_its_reason(backend, monkeypatch, tmp_path):
    broken = tmp_path / "embedded.py"
    broken.write_text("raise SystemExit('Illegal instruction')")
    monkeypatch.setattr(engines, "EMBEDDED", broken)
    engines.examine_wheel.cache_clear()
    with pytest.raises(Unavailable, match="Illegal instruction"):
        backend.probe({"engine": "embedded"}, os.environ)
    engines.examine_wheel.cache_clear()


def test_a_gpu_brings_the_knob_that_fills_it(backend, program, demo):
    more = """
if "--help" in sys.argv:
    print("-ngl,  --n-gpu-layers N                 layers (default: auto)")
    print("-np,   --parallel N                     slots (default: 1)")
"""
    (found,) = backend.probe({"server": str(program(LIKE_LLAMA_SERVER + more))}, os.environ)
    assert "gpu_layers" in {knob.name for knob in backend.knobs(found, demo)}
    assert backend.defaults(found, demo).config["gpu_layers"] == -1
    assert backend.footprint(found, demo, Config()) is None
    (plain,) = backend.probe(
        {"server": str(program(LIKE_LLAMA_SERVER.replace("CUDA0", "CPU") + more))}, os.environ
    )
    assert "gpu_layers" not in {knob.name for knob in backend.knobs(plain, demo)}


def test_the_plugin_loads_without_anything_heavy():
    code = (
        "import sys, velollm_llamacpp.plugin as p\n"
        "p.velollm_register_backends(lambda backend: print(backend.name))\n"
        "heavy = {'xllamacpp', 'psutil', 'cattrs', 'http.client', 'numpy'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "llamacpp\n")
