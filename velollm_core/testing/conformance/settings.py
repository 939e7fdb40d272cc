"""What holds of the settings of a running session: they are in force, and read back."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.backends.contract import mismatches
from velollm_core.config import Choices, Config, Knob, Value, inactive
from velollm_core.errors import NeedsRestart, VeloError
from velollm_core.testing.conformance.under_test import UnderTest


class SettingsInForce:
    """A setting that the engine ignores turns an experiment into one of the same with the same."""

    def test_settings_are_read_back_as_expected(self, under_test: UnderTest) -> None:
        """``effective`` says what ``expected`` foretells."""
        assert under_test.session.effective() is not None
        assert _mismatches(under_test, under_test.config, under_test.session.effective()) == ()

    def test_what_is_told_is_a_readable_knob(self, under_test: UnderTest) -> None:
        """What the server does not tell is absent, never assumed."""
        readable = {knob.name for knob in _knobs(under_test) if not knob.unreadable}
        assert set(under_test.session.effective()) <= readable

    def test_every_knob_asked_for_is_read_back_or_says_why_not(self, under_test: UnderTest) -> None:
        """A knob without :attr:`Knob.unreadable` is told, unless another knob makes it idle."""
        effective = under_test.session.effective()
        idle = inactive(_knobs(under_test), under_test.config)
        silent = [
            knob.name
            for knob in _knobs(under_test)
            if knob.name in under_test.config
            and knob.name not in idle
            and not knob.unreadable
            and knob.name not in effective
        ]
        assert silent == [], "give these knobs unreadable='why', or let effective() tell them"

    def test_changed_settings_are_in_force(self, under_test: UnderTest) -> None:
        """A session that is launched with other values tells other values."""
        change = _change(under_test)
        config = under_test.config | change
        before = under_test.session.effective()
        with under_test.opened(config) as session:
            effective = session.effective()
        assert _mismatches(under_test, config, effective) == ()
        told = [name for name in change if name in effective]
        assert [name for name in told if effective[name] == before.get(name)] == []

    def test_settings_are_read_back_and_not_repeated(self, under_test: UnderTest) -> None:
        """The kit starts the engine with another value than it asks the backend for; ``effective``
        has to say what runs.
        """
        change = _change(under_test)
        unreadable = {knob.name for knob in _knobs(under_test) if knob.unreadable}
        if set(change) <= unreadable:
            pytest.skip("no knob of facts.change can be read back")
        record = under_test.record
        with under_test.opened():
            usual = record.commands[-1] if record.commands else None
        if usual is None:
            pytest.skip("nothing was started through the place: there is no command to exchange")
        with under_test.opened(under_test.config | change) as session:
            told = session.effective()
            instead = record.commands[-1]
        place = under_test.place(usual=usual, instead=instead)
        with under_test.opened(under_test.config, place) as session:
            effective = session.effective()
        assert {name: effective.get(name) for name in change} == {
            name: told.get(name) for name in change
        }, "effective() repeats what was asked for, and the engine does something else"

    def test_live_knobs_change_in_a_running_session(self, under_test: UnderTest) -> None:
        """``reconfigure`` takes them, tells them, and answers go on; a request may bring its
        own.
        """
        live = under_test.facts.live
        if not live:
            pytest.skip("facts.live is empty: no knob changes in a running session")
        with under_test.opened() as session:
            per_request = Config(
                {
                    knob.name: live[knob.name]
                    for knob in _knobs(under_test)
                    if knob.name in live and knob.change == "per_request"
                }
            )
            request = evolve(under_test.request(max_tokens=4), config=per_request)
            assert under_test.ask(request, session).text
            session.reconfigure(live)
            effective = session.effective()
            readable = {knob.name for knob in _knobs(under_test) if not knob.unreadable}
            expected = {name: value for name, value in live.items() if name in readable}
            assert {name: effective.get(name) for name in expected} == expected
            assert under_test.ask(under_test.request(max_tokens=4), session).text

    def test_knobs_of_the_start_are_refused_by_a_running_session(
        self, under_test: UnderTest
    ) -> None:
        """With :class:`~velollm_core.errors.NeedsRestart`, and nothing is changed."""
        session = under_test.session
        before = session.effective()
        fixed = [knob for knob in _knobs(under_test) if knob.change == "restart"]
        if not fixed:
            pytest.skip("no knob needs a restart")
        for knob in fixed:
            known = before.get(knob.name, under_test.config.get(knob.name))
            for value in _others(knob, known):
                with pytest.raises(NeedsRestart, match=knob.name):
                    session.reconfigure(Config({knob.name: value}))
        assert session.effective() == before

    def test_an_unknown_knob_is_refused_by_a_running_session(self, under_test: UnderTest) -> None:
        """A knob that nobody knows is not taken in silence."""
        with pytest.raises(VeloError):
            under_test.session.reconfigure(Config({"no_such_knob": 1}))

    def test_setting_nothing_changes_nothing(self, under_test: UnderTest) -> None:
        """An empty configuration is always possible."""
        before = under_test.session.effective()
        under_test.session.reconfigure(Config())
        assert under_test.session.effective() == before


def _knobs(under_test: UnderTest) -> tuple[Knob, ...]:
    return under_test.backend.knobs(under_test.installation, under_test.model)


def _change(under_test: UnderTest) -> Config:
    if under_test.facts.mode == "attach":
        pytest.skip("facts.mode is attach: the server is started by somebody else")
    if not under_test.facts.change:
        pytest.skip("facts.change is empty: no knob is set at the start")
    return under_test.facts.change


def _mismatches(under_test: UnderTest, config: Config, effective: Config) -> tuple[object, ...]:
    expected = under_test.backend.expected(under_test.installation, under_test.model, config)
    return mismatches(expected, effective)


def _others(knob: Knob, known: Value | None) -> list[Value]:
    """One value of the knob that it does not have."""
    domain = knob.domain
    values = domain.values if isinstance(domain, Choices) else (domain.low, domain.high)
    return [value for value in values if value != known][:1]
