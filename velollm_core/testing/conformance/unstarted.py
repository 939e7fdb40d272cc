"""What holds of a backend before anything is started."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from velollm_core.backends.contract import Backend, Installation, Option
from velollm_core.config import Choices, Config, Knob, Problem, Range, Settings, Value, show
from velollm_core.errors import VeloError
from velollm_core.models.spec import Model
from velollm_core.testing.audit import left_behind
from velollm_core.testing.conformance.rules import Conformance
from velollm_core.testing.conformance.under_test import UnderTest

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_UNKNOWN = "no_such_knob"


class BackendConformance(Conformance):
    """Finding, knobs and settings: quick, and nothing is started."""

    def test_velollm_finds_it_under_its_name(self, under_test: UnderTest) -> None:
        """The plugin's hook registers it, and the entry point bears the backend's name."""
        assert _NAME.fullmatch(under_test.backend.name), "the name is typed by users: a-z, 0-9, -"
        if not under_test.facts.registered:
            pytest.skip("facts.registered is false: the plugin is not installed here")
        from velollm_core.plugins import load

        plugins = load({})
        found = plugins.backend(under_test.backend.name)
        assert type(found) is type(under_test.backend)
        assert under_test.backend.name in {plugin.name for plugin in plugins.listing()}

    def test_its_options_are_declared_and_described(self, under_test: UnderTest) -> None:
        """``-X`` keys are unique, and each has a sentence for the user."""
        options = under_test.backend.options
        assert isinstance(options, tuple)
        assert all(isinstance(option, Option) and option.summary for option in options)
        names = [option.name for option in options]
        assert len(set(names)) == len(names)

    def test_every_option_that_probe_reads_is_declared(self, under_test: UnderTest) -> None:
        """VeloLLM refuses ``-X`` keys that are not declared: no user could ever give such a one."""
        asked = _Asked(under_test.facts.options)
        under_test.within(
            "probe", lambda: under_test.backend.probe(asked, dict(under_test.environ))
        )
        declared = {option.name for option in under_test.backend.options}
        assert set(under_test.facts.options) <= declared
        assert asked.keys_read <= declared

    def test_probing_is_over_in_bounded_time(self, under_test: UnderTest) -> None:
        """Whoever names no backend waits for every probe."""
        under_test.within("probe", lambda: under_test.probe(under_test.facts.options))

    def test_probing_finds_the_same_twice(self, under_test: UnderTest) -> None:
        """Best first, each with the name of its backend and where it is."""
        first, second = (
            under_test.within("probe", lambda: under_test.probe(under_test.facts.options))
            for _ in range(2)
        )
        assert isinstance(first, tuple)
        assert first == second
        assert first, "nothing was found with facts.options"
        for installation in first:
            assert isinstance(installation, Installation)
            assert installation.backend == under_test.backend.name
            assert installation.location

    def test_probing_changes_nothing(self, under_test: UnderTest) -> None:
        """No process, no file, no variable and no folder of work is another one afterwards."""
        before = dict(os.environ), Path.cwd()
        with under_test.nothing_left(), left_behind() as files:
            under_test.within("probe", lambda: under_test.probe(under_test.facts.options))
        assert (dict(os.environ), Path.cwd()) == before
        assert files == set()

    def test_what_is_named_and_not_there_is_said(self, under_test: UnderTest) -> None:
        """Whoever names an engine does not want another one."""
        if not under_test.facts.absent:
            pytest.skip("facts.absent is empty: no option can name something that is not there")
        with pytest.raises(VeloError) as caught:
            under_test.within("probe", lambda: under_test.probe(under_test.facts.absent))
        assert caught.value.message

    def test_its_models_are_named(self, under_test: UnderTest) -> None:
        """A loaded model has a reference, and no two have the same."""
        models = under_test.backend.models(under_test.installation)
        assert isinstance(models, tuple)
        assert all(isinstance(model, Model) and model.reference for model in models)
        references = [model.reference for model in models]
        assert len(set(references)) == len(references)

    def test_every_knob_is_well_formed(self, under_test: UnderTest) -> None:
        """Name, domain, summary, source; a condition that can hold; a reason not to be read."""
        knobs = _knobs(under_test)
        names = [knob.name for knob in knobs]
        assert len(set(names)) == len(names)
        by_name = {knob.name: knob for knob in knobs}
        for knob in knobs:
            assert re.fullmatch(r"[a-z][a-z0-9_]*", knob.name), knob.name
            assert knob.summary, f"{knob.name} has no summary"
            assert knob.source, f"{knob.name} has no source"
            assert knob.unreadable is None or knob.unreadable.strip(), knob.name
            assert list(_samples(knob)), f"{knob.name} has no value"
            if knob.active_when is not None:
                other = by_name.get(knob.active_when.knob)
                assert other is not None, f"{knob.name} depends on a knob that is not there"
                assert all(other.domain.accepts(value) for value in knob.active_when.values)

    def test_a_value_is_read_as_it_is_shown(self, under_test: UnderTest) -> None:
        """``--set`` takes what the tables print."""
        for knob in _knobs(under_test):
            for value in _samples(knob):
                assert knob.parse(show(value)) == value, f"{knob.name}={show(value)}"

    def test_its_defaults_are_complete_and_allowed(self, under_test: UnderTest) -> None:
        """One value for every knob, of its domain, and together without contradiction."""
        if under_test.installation.kind == "server":
            pytest.skip("the engine is a running server, whose defaults nobody knows")
        if type(under_test.backend).defaults is Backend.defaults:
            pytest.skip("the backend does not override defaults: --baseline and tune do without")
        settings = under_test.backend.defaults(under_test.installation, under_test.model)
        assert isinstance(settings, Settings)
        assert set(settings.config) == {knob.name for knob in _knobs(under_test)}
        assert _check(under_test, settings.config) == ()

    def test_the_users_own_settings_are_settings(self, under_test: UnderTest) -> None:
        """Known knobs with allowed values, each with its origin."""
        settings = under_test.backend.current(
            under_test.installation, under_test.model, dict(under_test.environ)
        )
        assert isinstance(settings, Settings)
        assert _check(under_test, settings.config) == ()
        assert set(settings.config) <= set(settings.origins)

    def test_checking_names_what_is_wrong(self, under_test: UnderTest) -> None:
        """An unknown knob and a value outside its domain are problems, never errors."""
        assert [entry.knob for entry in _check(under_test, Config({_UNKNOWN: 1}))] == [_UNKNOWN]
        for knob in _knobs(under_test):
            wrong = _check(under_test, under_test.config | {knob.name: _outside(knob)})
            assert knob.name in {entry.knob for entry in wrong}
            assert all(entry.message for entry in wrong)

    def test_what_the_facts_change_is_allowed_and_new(self, under_test: UnderTest) -> None:
        """``facts.config``, ``change`` and ``live`` are settings that the backend takes."""
        facts = under_test.facts
        for config in (facts.config, facts.config | facts.change, facts.live):
            assert _check(under_test, Config(config)) == ()
        knobs = {knob.name: knob for knob in _knobs(under_test)}
        assert all(knobs[name].change == "restart" for name in facts.change)
        assert all(knobs[name].change != "restart" for name in facts.live)
        for name, value in {**facts.change, **facts.live}.items():
            assert under_test.config.get(name) != value, f"{name} has that value already"

    def test_only_what_can_be_read_back_is_expected(self, under_test: UnderTest) -> None:
        """``expected`` names readable knobs that were asked for, or that they bring about."""
        wanted = under_test.config | under_test.facts.change
        expected = under_test.backend.expected(under_test.installation, under_test.model, wanted)
        assert isinstance(expected, Config)
        assert set(expected) <= {knob.name for knob in _knobs(under_test) if not knob.unreadable}

    def test_a_footprint_is_bytes_or_unknown(self, under_test: UnderTest) -> None:
        """The memory guard adds it up."""
        footprint = under_test.backend.footprint(
            under_test.installation, under_test.model, under_test.config
        )
        if footprint is not None:
            assert footprint.host_bytes >= 0
            assert all(used >= 0 for used in footprint.gpu_bytes.values())

    def test_what_it_cannot_do_is_said_in_a_sentence(self, under_test: UnderTest) -> None:
        """A backend that cannot launch, or cannot attach, raises one of VeloLLM's errors."""
        backend, installation = under_test.backend, under_test.installation
        try:
            if under_test.facts.mode == "attach":
                session = backend.launch(
                    installation, under_test.model, Settings(), under_test.place()
                )
            else:
                session = backend.attach(installation, under_test.model, Config())
        except VeloError as error:
            assert error.message  # noqa: PT017 - not to raise is as good
        else:
            under_test.within("close", session.close)


class _Asked(dict[str, str]):
    """Options that remember which of them were asked for by name."""

    def __init__(self, options: object) -> None:
        super().__init__(options)  # type: ignore[call-overload]
        self.keys_read: set[str] = set()

    def __getitem__(self, key: str) -> str:
        self.keys_read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.keys_read.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        self.keys_read.add(key)
        return super().get(key, default)


def _knobs(under_test: UnderTest) -> tuple[Knob, ...]:
    return under_test.backend.knobs(under_test.installation, under_test.model)


def _check(under_test: UnderTest, config: Config) -> tuple[Problem, ...]:
    return under_test.backend.check(under_test.installation, under_test.model, config)


def _samples(knob: Knob) -> Iterator[Value]:
    """Values at the edges of a knob's domain."""
    if isinstance(knob.domain, Choices):
        yield from knob.domain.values
    elif knob.domain.low <= knob.domain.high:
        yield knob.domain.low if knob.domain.integral else float(knob.domain.low)
        yield knob.domain.high if knob.domain.integral else float(knob.domain.high)


def _outside(knob: Knob) -> Value:
    return knob.domain.high + 1 if isinstance(knob.domain, Range) else "no such choice"
