"""What a server counts itself is in the trial, over the time of the trial."""

from __future__ import annotations

import math

from velollm_core.errors import RequestError
from velollm_core.experiment.counters import counters, risen


class Server:
    def __init__(self, *, dead=False, told=None):
        self.dead, self.told = dead, told

    def counters(self):
        if self.dead:
            raise RequestError("gone.")
        return self.told


def test_totals_are_what_they_rose_by_and_the_rest_is_as_it_stands():
    before = {"tokens_total": 100.0, 'asked_total{reason="stop"}': 3.0, "running": 0.0}
    after = {"tokens_total": 150.0, 'asked_total{reason="stop"}': 5.0, "running": 2.0}
    assert risen(before, after) == {
        "tokens_total": 50.0,
        'asked_total{reason="stop"}': 2.0,
        "running": 2.0,
    }


def test_what_is_new_counts_from_nothing_and_no_number_is_left_out():
    assert risen({}, {"a_total": 4.0, "odd": math.inf}) == {"a_total": 4.0}
    assert risen({"b_total": math.inf}, {"b_total": math.inf}) == {}


def test_a_server_without_counters_or_gone_has_none():
    assert counters(Server()) == {}
    assert counters(Server(dead=True)) == {}
    assert counters(Server(told={"x": 1.0})) == {"x": 1.0}
