"""What is in the way of a measurement, and what is not."""

from __future__ import annotations

import pytest

from velollm_core.experiment.activity import Activity, Process
from velollm_core.experiment.conditions import judge

WORKING = Process(pid=7, argv=("/usr/bin/llama-server", "-m", "x.gguf"), cpus=1.0)


def said(usable=4.0, logical=4, attached=(), **activity):
    return list(judge(Activity(watched_s=0.5, **activity), usable, logical, attached))


def test_a_machine_at_rest_has_nothing_in_the_way():
    assert said(busy_cpus=0.3, on_battery=False) == []
    assert said() == []


def test_another_server_at_work_is_named_unless_it_takes_part_or_is_idle():
    (told,) = said(processes=(WORKING,))
    assert told == "another inference server is at work: llama-server (process 7)"
    assert said(processes=(WORKING,), attached=(7,)) == []
    idle = Process(pid=7, argv=WORKING.argv, cpus=0.1)
    assert said(processes=(idle,)) == []
    client = Process(pid=7, argv=("man", "ollama"), cpus=1.0)
    assert said(processes=(client,)) == []


@pytest.mark.parametrize(
    ("usable", "logical", "busy", "spoils"),
    [(4, 4, 1.9, False), (4, 4, 2.1, True), (2, 64, 30.0, False), (2, 64, 63.5, True)],
)
def test_a_foreign_load_counts_by_what_it_leaves_to_us(usable, logical, busy, spoils):
    told = said(usable=usable, logical=logical, busy_cpus=busy)
    assert bool(told) is spoils


def test_a_battery_is_named():
    assert said(on_battery=True) == ["the machine runs on its battery"]
