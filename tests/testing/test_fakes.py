"""Planted noise has the size, the tails and the drift that were asked for."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.backends.contract import Finish, Request
from velollm_core.config import Config
from velollm_core.testing.clock import VirtualClock
from velollm_core.testing.fakes import FakeBackend, Script
from velollm_core.testing.noise import factor, linear_drift

REQUEST = Request(prompt="a", max_tokens=9)


def decode_ms(backend):
    """Milliseconds of decoding in one answer of a new launch."""
    session = backend.attach(None, None, Config())
    *_, finish = session.generate(REQUEST)
    assert isinstance(finish, Finish)
    return finish.timings.predicted_ms


@pytest.mark.parametrize("tails", [None, 5.0])
def test_noise_has_the_spread_that_was_asked_for(tails):
    draw = random.Random(1)
    logs = [math.log(factor(draw, 0.03, tails)) for _ in range(40_000)]
    assert statistics.fmean(logs) == pytest.approx(0, abs=0.001)
    assert statistics.stdev(logs) == pytest.approx(0.03, rel=0.05)


def test_heavy_tails_are_heavier():
    def beyond_four(tails):
        draw = random.Random(2)
        return sum(abs(math.log(factor(draw, 0.01, tails))) > 0.04 for _ in range(40_000))

    assert beyond_four(3.0) > 10 * max(1, beyond_four(None))


def test_without_noise_every_launch_is_the_same():
    backend = FakeBackend(Script(token_ms=lambda _: 10.0))
    assert {decode_ms(backend) for _ in range(5)} == {80.0}


def test_launches_differ_by_their_noise_and_a_seed_repeats_them():
    def launches(seed):
        backend = FakeBackend(Script(token_ms=lambda _: 10.0, launch_noise=0.03, seed=seed))
        return [decode_ms(backend) for _ in range(200)]

    assert launches(1) == launches(1) != launches(2)
    assert statistics.stdev(map(math.log, launches(1))) == pytest.approx(0.03, rel=0.2)


def test_time_passes_on_the_clock_as_it_does_in_the_answers():
    clock = VirtualClock()
    backend = FakeBackend(Script(token_ms=lambda _: 10.0, prompt_ms=20.0, clock=clock))
    session = backend.attach(None, None, Config())
    assert clock.now_ms() == session.load_ms == 500.0
    *_, finish = session.generate(REQUEST)
    assert clock.now_ms() == 500.0 + finish.at_ms == 600.0


def test_a_machine_that_gets_warm_slows_down_over_the_run():
    clock = VirtualClock()
    script = Script(token_ms=lambda _: 10.0, drift=linear_drift(0.06, 10_000.0), clock=clock)
    backend = FakeBackend(script)
    first = decode_ms(backend)
    clock.advance(10_000.0 - clock.now_ms())
    assert decode_ms(backend) / first == pytest.approx(1.06, abs=0.005)


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_a_virtual_clock_only_goes_on(steps):
    clock = VirtualClock()
    for step in steps:
        before = clock.now_ms()
        clock.advance(step)
        assert clock.now_ms() == before + step


def test_a_virtual_clock_does_not_go_back_and_tells_the_time_of_day():
    clock = VirtualClock()
    clock.advance(90_000)
    assert clock.utc() == "2026-01-01T00:01:30+00:00"
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
