"""What is gathered for the checks: engines as they would be run, the model, and the folders."""

from __future__ import annotations

import os
import sys

import pytest

from velollm_core.backends.contract import Backend, Installation, Session
from velollm_core.config import Config, Settings
from velollm_core.doctor.gather import engines, folder, model_at_hand
from velollm_core.errors import ModelError, Unavailable, UsageError
from velollm_core.models.demo import DemoSource
from velollm_core.models.spec import Model


class Attached(Session):
    pids = (7, 8)

    def generate(self, request):
        raise NotImplementedError

    def close(self):
        pass


DEMO = Model(reference="demo")


class Some(Backend):
    def __init__(self, name="some", found=("a", "b"), fault=None, current_fault=None):
        self.name = name
        self.found = found
        self.fault = fault
        self.current_fault = current_fault

    def probe(self, options, environ):
        if self.fault is not None:
            raise self.fault
        names = (options["server"],) if "server" in options else self.found
        return tuple(Installation(backend=self.name, kind="binary", location=n) for n in names)

    def current(self, installation, model, environ):
        if self.current_fault is not None:
            raise self.current_fault
        return Settings(config=Config({"threads": int(environ["N"])}))


def test_the_first_engine_is_looked_at_with_the_users_settings_and_the_others_are_known():
    (engine,), faults = engines([Some()], {}, lambda: DEMO, {"N": "3"})
    assert faults == ()
    assert engine.installation.location == "a"
    assert [other.location for other in engine.others] == ["b"]
    assert engine.settings.config["threads"] == 3


def test_an_engine_that_is_named_goes_first_and_the_others_are_still_known():
    (engine,), _ = engines([Some()], {"server": "b"}, lambda: DEMO, {"N": "3"})
    assert engine.installation.location == "b"
    assert [other.location for other in engine.others] == ["a"]


def test_settings_that_cannot_be_read_keep_their_reason():
    (engine,), _ = engines(
        [Some(current_fault=UsageError("x.ini is broken."))], {}, lambda: DEMO, {}
    )
    assert (engine.settings, engine.fault) == (None, "x.ini is broken.")


def test_a_backend_that_fails_costs_only_itself():
    backends = [
        Some("broken", fault=ZeroDivisionError("boom")),
        Some("away", fault=Unavailable("nothing here.")),
        Some("none", found=()),
        Some(),
    ]
    found, faults = engines(backends, {}, lambda: DEMO, {"N": "3"})
    assert [engine.backend.name for engine in found] == ["some"]
    assert faults == ("backend broken failed: ZeroDivisionError: boom",)


def test_an_engine_that_is_named_and_not_there_is_an_error():
    with pytest.raises(Unavailable):
        engines([Some(fault=Unavailable("not there."))], {"server": "x"}, lambda: DEMO, {})


def test_nothing_is_fetched(tmp_path):
    environ = {"VELOLLM_CACHE_DIR": str(tmp_path)}
    assert model_at_hand(None, (DemoSource(),), environ) == DEMO
    assert model_at_hand("demo:x", (DemoSource(),), environ) == Model(reference="demo:x")
    assert not any(tmp_path.iterdir())


def test_a_model_that_is_named_and_not_there_is_an_error(tmp_path):
    with pytest.raises(ModelError):
        model_at_hand(str(tmp_path / "x.gguf"), (), {})


def test_a_model_is_asked_for_only_where_the_engine_has_none():
    class Loaded(Some):
        def models(self, installation):
            return (Model(reference="x", served_name="x"),)

    def missing():
        raise ModelError("y is not there.")

    (engine,), _ = engines([Loaded()], {}, missing, {"N": "3"})
    assert engine.model.served_name == "x"
    with pytest.raises(ModelError):
        engines([Some()], {}, missing, {"N": "3"})


def test_the_processes_of_a_server_that_is_named_are_known():
    class Running(Some):
        def probe(self, options, environ):
            return (Installation(backend="some", kind="server", location=options["url"]),)

        def attach(self, installation, model, config):
            return Attached()

    (engine,), _ = engines([Running()], {"url": "http://x"}, lambda: DEMO, {"N": "3"})
    assert engine.pids == (7, 8)


def looked_at(path, **more):
    return folder(path, purpose="the journal", variable="VELOLLM_DATA_DIR", **more)


def test_a_folder_that_is_not_there_yet_is_judged_by_what_is(tmp_path):
    seen = looked_at(tmp_path / "a" / "b" / "c")
    assert seen.obstacle is None
    assert seen.free_bytes > 0
    assert not (tmp_path / "a").exists()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "a").touch()
    assert looked_at(tmp_path / "a" / "b").obstacle == "a file stands where a folder is wanted"


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind"
)
def test_a_folder_and_a_file_without_permission(tmp_path):
    (tmp_path / "journal.sqlite3").touch(mode=0o400)
    assert "journal.sqlite3" in looked_at(tmp_path, file="journal.sqlite3").obstacle
    tmp_path.chmod(0o500)
    assert looked_at(tmp_path / "x").obstacle == "no permission to write there"
    tmp_path.chmod(0o700)
