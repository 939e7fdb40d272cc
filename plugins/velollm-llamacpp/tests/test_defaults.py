"""The embedded engine does by default what a native llama-server does, as it was recorded."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from velollm_llamacpp.arguments import fields, read, settable
from velollm_llamacpp.embedded import parameters
from velollm_llamacpp.engines import examine_binary
from velollm_llamacpp.knobs import BY_NAME, ENTRIES
from velollm_llamacpp.record import recorded, recorded_flags

from velollm_core.config import Config, Settings

OF_THE_MACHINE = {"threads", "threads_batch"}


def plain(value):
    """A field of the wheel as the help of llama-server would print it."""
    return value.name if hasattr(value, "name") else value


@pytest.mark.engine
def test_the_embedded_engine_reports_the_recorded_defaults(backend, embedded, demo, place):
    defaults = backend.defaults(embedded, demo)
    with backend.launch(embedded, demo, defaults, place()) as session:
        effective = session.effective()
    told = {name: value for name, value in effective.items() if name not in OF_THE_MACHINE}
    assert Config(told) == recorded().effective


@pytest.mark.engine
def test_settings_that_say_nothing_mean_the_same_defaults(backend, embedded, demo, place):
    with backend.launch(
        embedded, demo, Settings(config=Config({"threads": 1})), place()
    ) as session:
        told = session.effective()
    assert {name: told[name] for name in recorded().effective} == dict(recorded().effective)


def test_every_default_stands_in_the_recorded_help():
    for entry in ENTRIES:
        flag = recorded_flags().first(entry.names)
        assert flag is not None
        assert flag.default is not None
        assert read(entry, flag.default) is not None


def test_the_wheel_is_given_every_default_and_its_fields_take_them(backend, embedded, demo):
    defaults = backend.defaults(embedded, demo).config
    assert set(defaults) == {knob.name for knob in settable(recorded_flags(), gpus=False)}
    params = parameters({"model": "x.gguf", "fields": fields(defaults)})
    for name, value in defaults.items():
        entry = BY_NAME[name]
        found = params
        for part in entry.attribute.split("."):
            found = getattr(found, part)
        found = found[0] if isinstance(found, list) else found
        if entry.members is not None:
            assert plain(found) == entry.members[value].split(".")[1]
        elif value != entry.own_choice:
            assert found == pytest.approx(value)


def test_a_native_server_still_is_what_the_record_says(native):
    if "VELOLLM_TEST_LLAMA_SERVER" not in os.environ:
        pytest.skip("the record is of one build; name that one in VELOLLM_TEST_LLAMA_SERVER")
    assert examine_binary(Path(native.location)).flags.entries == recorded().flags


@pytest.mark.engine
def test_a_native_server_that_is_given_nothing_behaves_as_recorded(native, demo):
    if "VELOLLM_TEST_LLAMA_SERVER" not in os.environ:
        pytest.skip("the record is of one build; name that one in VELOLLM_TEST_LLAMA_SERVER")
    tool = Path(__file__).parents[1] / "tools" / "record_native.py"
    spec = importlib.util.spec_from_file_location("record_native", tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    effective = module.bare_effective(Path(native.location), demo.path, dict(os.environ))
    told = {name: value for name, value in effective.items() if name not in OF_THE_MACHINE}
    assert Config(told) == recorded().effective
