"""An engine that does not start says why, in its own words, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import time

import gguf
import psutil
import pytest
from velollm_llamacpp.failures import explain

from velollm_core.backends.contract import Installation
from velollm_core.config import Config, Settings
from velollm_core.errors import FailureKind, LaunchError, ModelError, Unavailable, UsageError
from velollm_core.models.spec import Model


@pytest.fixture
def failure(backend, installation, place):
    """The error with which a launch of this model ends."""

    def of(path, **knobs) -> LaunchError:
        model = Model(reference=str(path), path=path)
        with pytest.raises(LaunchError) as caught:
            backend.launch(installation, model, Settings(config=Config(knobs)), place())
        return caught.value

    return of


@pytest.mark.engine
def test_a_file_that_is_no_gguf(failure, tmp_path):
    path = tmp_path / "notes.gguf"
    path.write_text("these are my notes and no model at all\n" * 100)
    error = failure(path)
    assert error.kind is FailureKind.REFUSED
    assert error.hint == "The model is not a GGUF file."
    assert "failed to load model" in error.message


@pytest.mark.engine
def test_a_file_cut_in_half(failure, demo, tmp_path):
    path = tmp_path / "half.gguf"
    path.write_bytes(demo.path.read_bytes()[: demo.path.stat().st_size // 2])
    error = failure(path)
    assert error.kind is FailureKind.REFUSED
    assert "cut off" in error.hint
    assert "corrupted or incomplete" in error.message


@pytest.mark.engine
def test_an_architecture_that_llama_cpp_does_not_know(failure, tmp_path):
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "oddlm")
    writer.add_context_length(128)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    error = failure(path)
    assert error.kind is FailureKind.REFUSED
    assert "oddlm" in error.message
    assert "architecture" in error.hint


@pytest.mark.engine
def test_a_file_that_is_not_there(failure, tmp_path):
    error = failure(tmp_path / "gone.gguf")
    assert error.kind is FailureKind.REFUSED
    assert "not there" in error.hint


@pytest.mark.engine
def test_more_memory_than_there_is(failure, demo):
    # 23 KB a position for this model; four times what the machine has cannot be had.
    positions = 4 * psutil.virtual_memory().total // 23_040
    error = failure(demo.path, context=positions)
    assert error.kind is FailureKind.OUT_OF_MEMORY
    assert "lower the context" in error.hint
    assert "failed" in error.message


@pytest.mark.engine
def test_an_engine_that_aborts_has_crashed(failure, demo):
    error = failure(demo.path, batch=1, ubatch=1)  # below the number of slots
    assert error.kind is FailureKind.CRASH
    assert "GGML_ASSERT" in error.message


@pytest.mark.engine
def test_settings_that_exclude_each_other(failure, demo):
    error = failure(demo.path, flash_attention="off", cache_type_v="q8_0")
    assert error.kind is FailureKind.REFUSED
    assert "flash_attention" in error.hint


@pytest.mark.engine
def test_a_port_that_is_taken(backend, native, demo, place):
    # The only way to a fixed port is around the checks: VeloLLM itself asks for a free one.
    from velollm_llamacpp.launch import wait_until_ready

    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = place()
        port = str(taken.getsockname()[1])
        child = where.start([native.location, "-m", str(demo.path), "--port", port])
        with pytest.raises(LaunchError, match="bind") as caught:
            wait_until_ready(child, where, "llama-server")
        child.stop()
    assert caught.value.kind is FailureKind.REFUSED
    assert "port is taken" in caught.value.hint


def test_a_flag_that_the_build_does_not_know_is_refused_before_the_start(
    backend, native, demo, place
):
    with pytest.raises(UsageError, match="--nonsense"):
        backend.launch(native, demo, Settings(extra_args=("--nonsense", "3")), place())


@pytest.mark.engine
def test_a_flag_that_the_server_refuses_itself(backend, native, demo, place):
    with pytest.raises(LaunchError, match="--numa") as caught:
        backend.launch(native, demo, Settings(extra_args=("--numa", "sideways")), place())
    assert caught.value.kind is FailureKind.REFUSED
    assert "flag or value" in caught.value.hint


def test_flags_that_open_doors_are_never_passed_on(backend, native, demo, place):
    for words in (("--tools", "all"), ("--host", "0.0.0.0"), ("--lora", "x"), ("-hf", "a/b")):
        with pytest.raises(UsageError, match="not passed on"):
            backend.launch(native, demo, Settings(extra_args=words), place())
    with pytest.raises(UsageError, match="GGML_BACKEND_PATH"):
        backend.launch(
            native, demo, Settings(extra_env={"GGML_BACKEND_PATH": "/tmp/x.so"}), place()
        )


def test_a_model_that_is_no_file_here(backend, embedded, place):
    with pytest.raises(ModelError, match="no file"):
        backend.launch(embedded, Model(reference="served"), Settings(), place())


HELP = """
import sys, time
if "--help" in sys.argv:
    print("-c,    --ctx-size N                     size (default: 4096)")
    print("--port PORT                             port to listen (default: 8080)")
    sys.exit()
if "--version" in sys.argv:
    print("version: 4242 (abc1234)", file=sys.stderr)
    sys.exit()
if "/dev/null" in sys.argv:
    sys.exit(1)
"""


@pytest.fixture
def fake(program, backend, demo, place):
    """Launches a llama-server that behaves like ``body`` once it is to serve."""

    def launch(body: str, seconds: float = 20.0):
        path = program(HELP + body)
        installation = backend.probe({"server": str(path)}, os.environ)[0]
        return backend.launch(installation, demo, Settings(), place(seconds))

    return launch


def test_a_server_that_never_becomes_ready_is_given_up_at_the_deadline(fake):
    started = time.monotonic()
    with pytest.raises(LaunchError, match="not ready in time") as caught:
        fake("print('loading for ever', flush=True)\ntime.sleep(600)", seconds=1.5)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert "loading for ever" in caught.value.message
    assert time.monotonic() - started < 15


def test_a_server_that_accepts_and_never_answers_is_given_up_at_the_deadline(fake):
    body = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print("main: server is listening on http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
time.sleep(600)
"""
    with pytest.raises(LaunchError, match="not ready in time") as caught:
        fake(body, seconds=2)
    assert caught.value.kind is FailureKind.TIMEOUT


def test_a_server_that_dies_at_once_is_noticed_at_once(fake):
    started = time.monotonic()
    with pytest.raises(LaunchError, match="exit code 7"):
        fake("sys.exit(7)", seconds=60)
    assert time.monotonic() - started < 20


def test_a_server_that_was_built_for_another_processor(fake):
    with pytest.raises(LaunchError, match="SIGILL") as caught:
        fake("import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    assert "another processor" in caught.value.hint


def test_builds_that_print_the_port_they_were_asked_for_are_found_by_their_socket(fake):
    body = """
import http.server
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data = b'{"status": "ok"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Healthy)
print("main: HTTP server is listening, hostname: 127.0.0.1, port: 0, http threads: 3", flush=True)
server.serve_forever()
"""
    with fake(body) as session:
        assert session.url.startswith("http://127.0.0.1:")
        assert not session.url.endswith(":0")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("ggml_cuda: CUDA error: out of memory", FailureKind.OUT_OF_MEMORY),
        ("vk::Device::allocateMemory: ErrorOutOfDeviceMemory", FailureKind.OUT_OF_MEMORY),
        ("terminate called: std::bad_alloc", FailureKind.OUT_OF_MEMORY),
        ("error while loading shared libraries: libcuda.so.1", FailureKind.REFUSED),
    ],
)
def test_other_last_words_are_understood(words, kind):
    explained = explain("llama-server", 1, f"loading\n{words}\n" + "usage\n" * 50)
    assert explained.cause.kind is kind
    assert words in explained.message


@pytest.mark.parametrize(
    "warning",
    [
        "0.00.312.958 W load: failed to mlock 9 byte buffer: Cannot allocate memory",
        "warning: failed to mlock 9 byte buffer: Cannot allocate memory",
    ],
)
def test_a_warning_is_no_cause(warning):
    bind = "0.00.400.000 E srv  llama_server: couldn't bind HTTP server socket"
    explained = explain("llama-server", 1, f"{warning}\n{bind}\n")
    assert "port is taken" in explained.cause.hint
    assert explain("llama-server", -6, warning).cause.kind is FailureKind.CRASH


def test_the_last_error_that_names_a_cause_is_the_one():
    log = (
        "0.00.300.000 E alloc: failed to allocate buffer of size 99, a smaller one is tried\n"
        "0.00.400.000 E srv  init: couldn't bind HTTP server socket\n"
        "0.00.500.000 E srv  init: failed to load model\n"
    )
    assert "port is taken" in explain("llama-server", 1, log).cause.hint


def test_a_debuggers_missing_sources_are_not_a_missing_model():
    log = "GGML_ASSERT(x) failed\n58\t../sysdeps/start.h: No such file or directory.\n"
    assert explain("llama-server", -6, log).cause.kind is FailureKind.CRASH


def test_last_words_that_mean_nothing_are_quoted_all_the_same():
    explained = explain("llama-server", -11, "loading\nGGML_ASSERT(x) failed\n")
    assert explained.cause.kind is FailureKind.CRASH
    assert "SIGSEGV" in explained.message
    assert "GGML_ASSERT" in explained.message


def test_an_attached_server_is_no_engine_to_start(backend, demo, place):
    server = Installation(backend="llamacpp", kind="server", location="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="cannot start"):
        backend.launch(server, demo, Settings(), place())
