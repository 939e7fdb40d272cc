"""Plugins: found, listed, and kept from taking a command down."""

from __future__ import annotations

import types

import pytest

from velollm_core import hookimpl
from velollm_core.errors import Unavailable, UsageError
from velollm_core.hookspecs import VELOLLM_HOOKS
from velollm_core.plugins import Plugins, load
from velollm_core.testing.fakes import FakeBackend


def module(**members) -> types.SimpleNamespace:
    return types.SimpleNamespace(**members)


def backends_plugin(*backends):
    @hookimpl
    def velollm_register_backends(register):
        for backend in backends:
            register(backend)

    return module(velollm_register_backends=velollm_register_backends)


def with_plugins(**loaders) -> Plugins:
    plugins = Plugins()
    for name, loader in loaders.items():
        plugins.add(loader, name, f"velollm-{name}", "1.2")
    return plugins


def raises(error: BaseException):
    def load():
        raise error

    return load


def test_the_core_registers_itself_as_a_plugin_would():
    plugins = load({})
    names = {entry.name for entry in plugins.listing() if entry.distribution == "velollm"}
    parts = ("doctor", "gpus", "models", "optimize", "workloads")
    assert names == {f"core-{part}" for part in parts}
    assert plugins.broken == ()


def test_a_plugin_that_fails_to_import_costs_its_own_features_and_one_line():
    plugins = with_plugins(
        bad=raises(ModuleNotFoundError("No module named 'libcuda_missing'")),
        good=lambda: backends_plugin(FakeBackend()),
        worse=raises(SystemExit(3)),
    )
    assert list(plugins.backends()) == ["fake"]
    bad, worse = map(str, plugins.broken)
    assert bad == (
        "plugin bad (velollm-bad 1.2) could not be loaded: "
        "ModuleNotFoundError: No module named 'libcuda_missing'"
    )
    assert worse == "plugin worse (velollm-worse 1.2) could not be loaded: SystemExit: 3"


def test_a_plugin_built_for_other_hooks_is_left_out_and_says_for_which():
    plugins = with_plugins(old=lambda: module(VELOLLM_HOOKS=VELOLLM_HOOKS + 1))
    assert f"VELOLLM_HOOKS {VELOLLM_HOOKS + 1}" in plugins.broken[0].reason


def test_a_plugin_with_a_hook_that_there_is_not_is_left_out():
    @hookimpl
    def velollm_make_coffee():
        return ()

    plugins = with_plugins(barista=lambda: module(velollm_make_coffee=velollm_make_coffee))
    assert "velollm_make_coffee" in plugins.broken[0].reason


def test_a_plugin_with_an_argument_that_the_hook_has_not_is_left_out():
    @hookimpl
    def velollm_register_backends(registrar):
        return None

    plugins = with_plugins(odd=lambda: module(velollm_register_backends=velollm_register_backends))
    assert "registrar" in plugins.broken[0].reason


def test_a_raising_hook_does_not_cost_the_others_their_results():
    @hookimpl
    def velollm_detect_gpus(probe):
        yield from ()
        raise ValueError("boom")

    @hookimpl(specname="velollm_detect_gpus")
    def fine(probe):
        return ["a gpu"]

    plugins = with_plugins(
        first=lambda: module(velollm_detect_gpus=velollm_detect_gpus),
        second=lambda: module(fine=fine),
    )
    assert plugins.detect_gpus(None) == ("a gpu",)
    assert plugins.broken[0].reason == "failed in velollm_detect_gpus: ValueError: boom"


def test_two_backends_of_one_name_are_an_error_that_names_both_plugins():
    plugins = with_plugins(
        one=lambda: backends_plugin(FakeBackend()), two=lambda: backends_plugin(FakeBackend())
    )
    assert list(plugins.backends()) == ["fake"]
    assert "'fake'" in plugins.broken[0].reason
    assert "one has registered" in plugins.broken[0].reason
    assert plugins.broken[0].name == "two"


def test_a_second_plugin_of_one_name_is_left_out_and_the_first_goes_on():
    plugins = Plugins()
    plugins.add(lambda: backends_plugin(FakeBackend()), "twin", "velollm-one", "1")
    plugins.add(module, "twin", "velollm-two", "2")
    assert list(plugins.backends()) == ["fake"]
    (broken,) = plugins.broken
    assert broken.distribution == "velollm-two"
    assert "velollm-one 1 has a plugin of that name" in broken.reason


def test_a_backend_without_a_name_is_refused():
    plugins = with_plugins(odd=lambda: backends_plugin(object()))
    assert plugins.backends() == {}
    assert "without a name" in plugins.broken[0].reason


def test_asking_for_a_broken_backend_says_why_it_is_broken():
    plugins = with_plugins(cuda=raises(OSError("libcudart.so.13: cannot open")))
    with pytest.raises(Unavailable, match=r"libcudart\.so\.13") as caught:
        plugins.backend("cuda")
    assert "velollm-cuda" in caught.value.hint


def test_asking_for_an_unknown_backend_lists_those_there_are():
    plugins = with_plugins(good=lambda: backends_plugin(FakeBackend()))
    with pytest.raises(UsageError, match="installed: fake"):
        plugins.backend("nothing")


def test_plugins_can_be_named_disabled_and_traced():
    told: list[str] = []
    plugins = load({"VELOLLM_PLUGINS": "nothing-of-this-name"})
    assert "llamacpp" not in {entry.name for entry in plugins.listing()}
    plugins = load({"VELOLLM_DISABLE_PLUGINS": "llamacpp, core-gpus"})
    assert not {"llamacpp", "core-gpus"} & {entry.name for entry in plugins.listing()}
    plugins = load({"VELOLLM_TRACE_PLUGINS": "1", "VELOLLM_PLUGINS": "none"}, trace=told.append)
    plugins.workloads()
    assert any(line.startswith("velollm_register_workloads core-workloads") for line in told)


def test_observers_are_told_and_a_raising_one_is_noted():
    told = []

    @hookimpl
    def velollm_trial_finished(trial):
        told.append(trial)
        raise RuntimeError("observer")

    plugins = with_plugins(watcher=lambda: module(velollm_trial_finished=velollm_trial_finished))
    plugins.trial_finished("a trial")
    plugins.benchmark_finished("a result")
    assert told == ["a trial"]
    assert "observer" in plugins.broken[0].reason
