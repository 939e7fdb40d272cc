"""A running Ollama is found, or its program; where neither is, the user is told what to start."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from velollm_ollama.api import Api
from velollm_ollama.source import OllamaSource

from velollm_core.config import Config
from velollm_core.errors import Unavailable, UsageError
from velollm_core.testing.raw_server import answer

NOTHING = {"OLLAMA_HOST": "127.0.0.1:9", "PATH": ""}


@pytest.fixture(scope="module")
def server(double):
    return double()


@pytest.fixture
def on_path(program) -> dict[str, str]:
    return {**os.environ, "PATH": str(program.parent), "OLLAMA_HOST": "127.0.0.1:9"}


def test_a_running_server_goes_before_the_program_and_both_are_found(
    backend, server, program, on_path
):
    environ = {**on_path, "OLLAMA_HOST": server.environ["OLLAMA_HOST"]}
    running, private = backend.probe({}, environ)
    assert backend.server_pids(running) == (server.process.pid,)
    assert backend.server_pids(private) == ()
    assert (running.kind, running.location, running.version) == ("server", server.url, "0.33.0")
    assert (private.kind, private.location, private.version) == ("binary", str(program), "0.33.0")


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("mode=attach", "server"),
        ("mode=private", "binary"),
        ("host=localhost:{port}", "server"),
        ("binary={program}", "binary"),
    ],
)
def test_either_can_be_had_alone(backend, server, on_path, option, kind):
    port, program = server.url.rpartition(":")[2], f"{on_path['PATH']}/ollama"
    name, _, value = option.format(port=port, program=program).partition("=")
    environ = {**on_path, "OLLAMA_HOST": server.environ["OLLAMA_HOST"]}
    assert [found.kind for found in backend.probe({name: value}, environ)] == [kind]


def test_without_either_nothing_is_found_and_another_engine_may_be_chosen(backend):
    assert backend.probe({}, NOTHING) == ()
    assert backend.probe({}, {**NOTHING, "OLLAMA_HOST": "ho st"}) == ()


@pytest.mark.parametrize("options", [{"mode": "attach"}, {"host": "127.0.0.1:9"}])
def test_a_server_that_was_named_and_does_not_run_is_to_be_started(backend, options):
    with pytest.raises(Unavailable) as caught:
        backend.probe(options, NOTHING)
    assert caught.value.message == ("Ollama is not running: nothing answers at http://127.0.0.1:9.")
    assert "ollama serve" in caught.value.hint


def test_the_command_says_how_to_start_ollama(velollm):
    done = velollm("--backend", "ollama", "bench", env=NOTHING)
    assert done.returncode == 3
    said = " ".join(done.stderr.split())
    assert "Ollama is not running: start it with `ollama serve`" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "private"}, "there is no ollama on the PATH"),
        ({"binary": "/no/such/ollama"}, "/no/such/ollama is no Ollama"),
        ({"binary": "/bin/true"}, "/bin/true is no Ollama"),
    ],
)
def test_a_program_that_is_not_there_is_to_be_installed(backend, options, message):
    with pytest.raises(Unavailable, match=message) as caught:
        backend.probe(options, NOTHING)
    assert "https://ollama.com/download" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "attach, private"),
        ({"host": "localhost", "binary": "x"}, "Leave one of them out"),
        ({"host": "localhost", "mode": "private"}, "Leave one of them out"),
        ({"binary": "x", "mode": "attach"}, "Leave one of them out"),
        ({"experimental": "yes"}, "on or off"),
        ({"host": "ftp://x"}, "HOST:PORT"),
    ],
)
def test_options_that_contradict_each_other_are_refused(backend, options, message):
    with pytest.raises(UsageError) as caught:
        backend.probe(options, NOTHING)
    assert message in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'{"version": 7}', b"{}"])
def test_another_server_at_that_port_is_no_ollama(backend, velollm_raw_server, body):
    other = velollm_raw_server(lambda connection, _: answer(connection, body))
    with pytest.raises(Unavailable, match=r"no Ollama|not JSON"):
        backend.probe({"host": other.url}, NOTHING)
    assert backend.probe({}, {**NOTHING, "OLLAMA_HOST": other.url}) == ()


def test_a_server_says_what_it_has_loaded_first(backend, double):
    (found,) = backend.probe({}, double().environ)
    assert [model.served_name for model in backend.models(found)] == [
        "small:latest",
        "other/one:q4",
    ]
    with backend.attach(found, backend.models(found)[1], Config()):
        assert backend.models(found)[0].served_name == "other/one:q4"


def test_a_model_whose_file_can_be_read_is_known(backend, server):
    (found,) = backend.probe({}, server.environ)
    first = backend.models(found)[0]
    assert (first.reference, first.served_name) == ("small", "small:latest")
    assert first.spec.context_length == 8192
    assert first.path.name.startswith("sha256-")


def test_the_file_of_a_server_that_keeps_its_models_elsewhere_is_found(backend, server, tmp_path):
    environ = {**server.environ, "OLLAMA_MODELS": str(tmp_path)}
    (found,) = backend.probe({}, environ)
    assert backend.models(found)[0].spec is not None


def test_a_model_of_the_same_name_and_another_content_is_not_taken_for_it(
    backend, double, put_model, weights, tmp_path
):
    put_model(tmp_path / "theirs", content=weights)
    put_model(tmp_path / "ours", content=weights + b"\0")
    theirs = double(models=tmp_path / "theirs")
    (found,) = backend.probe({}, {**theirs.environ, "OLLAMA_MODELS": str(tmp_path / "ours")})
    assert (tmp_path / "theirs") in backend.models(found)[0].path.parents


def test_models_that_run_elsewhere_or_write_no_text_are_left_out(
    backend, double, put_model, tmp_path
):
    put_model(tmp_path, "library/here:latest")
    put_model(tmp_path, "library/big:cloud", config={"remote_host": "https://ollama.com"})
    put_model(tmp_path, "library/embed:latest", config={"capabilities": ["embedding"]})
    (found,) = backend.probe({}, double(models=tmp_path).environ)
    assert [model.served_name for model in backend.models(found)] == ["here:latest"]


def test_a_file_that_is_damaged_does_not_cost_the_list(backend, double, put_model, tmp_path):
    put_model(tmp_path, content=b"this is no model")
    (found,) = backend.probe({}, double(models=tmp_path).environ)
    (model,) = backend.models(found)
    assert (model.served_name, model.spec) == ("small:latest", None)


def test_names_that_no_ollama_would_have_are_never_shown(backend, velollm_raw_server):
    names = ["good", "\x1b]0;owned\x07", "a b", "x'; reboot", "", 7]
    models = json.dumps({"models": [{"name": name} for name in names], "version": "0.33.0"})
    hostile = velollm_raw_server(lambda connection, _: answer(connection, models.encode()))
    (found,) = backend.probe({"host": hostile.url}, NOTHING)
    assert [model.served_name for model in backend.models(found)] == ["good"]


def test_the_program_knows_the_models_that_lie_here(backend, on_path, models_folder):
    (found,) = backend.probe({}, {**on_path, "OLLAMA_MODELS": str(models_folder)})
    first, second = backend.models(found)
    assert (first.served_name, second.served_name) == ("small:latest", "other/one:q4")
    assert first.spec is not None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc here")
def test_a_private_server_and_other_engines_find_the_models_where_the_running_server_keeps_them(
    backend, program, server
):
    environ = {"OLLAMA_HOST": server.environ["OLLAMA_HOST"], "HOME": "/nowhere"}
    (private,) = backend.probe({"binary": str(program)}, environ)
    assert [model.served_name for model in backend.models(private)] == [
        "small:latest",
        "other/one:q4",
    ]
    assert OllamaSource().resolve("small", lambda *_: None, environ).is_file()


def test_a_list_of_models_with_odd_fields_is_read_all_the_same(backend, velollm_raw_server):
    told = [{"name": "odd", "capabilities": 7}, {"name": "none", "capabilities": ["embedding"]}]
    body = json.dumps({"models": told, "version": "0.33.0"})
    odd = velollm_raw_server(lambda connection, _: answer(connection, body.encode()))
    (found,) = backend.probe({"host": odd.url}, NOTHING)
    assert [model.served_name for model in backend.models(found)] == ["odd"]


def test_what_a_server_has_in_memory_is_told_with_how_to_free_it(backend, double):
    server = double()
    (found,) = backend.probe({}, server.environ)
    assert backend.in_memory(found) == {}
    Api(server.url).load("small:latest", {})
    host = server.environ["OLLAMA_HOST"]
    assert backend.in_memory(found) == {
        "small:latest": f"OLLAMA_HOST=http://{host} ollama stop small:latest"
    }


def test_a_home_without_models_has_none(backend, on_path, tmp_path):
    environ = {**on_path, "HOME": str(tmp_path), "OLLAMA_MODELS": str(tmp_path / "none")}
    (found,) = backend.probe({}, environ)
    assert backend.models(found) == ()
    assert not Path(tmp_path / "none").exists()
