"""llama.cpp's own rules: when they speak, and what they say."""

from __future__ import annotations

import pytest
from attrs import evolve
from velollm_llamacpp.advice import hybrid_threads, speculation
from velollm_llamacpp.arguments import settable
from velollm_llamacpp.record import recorded, recorded_flags

from velollm_core.backends.advice import AdviceContext, Goal
from velollm_core.backends.contract import Installation
from velollm_core.config import Config, Kept, Settings, Suggestion, problems
from velollm_core.hardware.spec import CpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.models.spec import Model, ModelSpec, RecurrentState

ARROW_LAKE = CpuInfo(
    model="20 cores",
    architecture="x86_64",
    logical=20,
    physical=20,
    performance_cores=8,
    efficiency_cores=12,
)
SPEC = ModelSpec(
    architecture="llama",
    parameter_count=1,
    layers=1,
    embedding_length=1,
    context_length=1,
    quantization="Q4_1",
    file_bytes=1,
)


def context(cpu=ARROW_LAKE, system="Linux", spec=SPEC, **more):
    more = {"current": Settings(config=Config({"threads": 0, "spec_type": "none"})), **more}
    return AdviceContext(
        hardware=HardwareSpec(
            cpu=cpu,
            memory=MemoryInfo(total_bytes=1 << 34, available_bytes=1 << 34),
            os=OsInfo(system=system, release="6"),
        ),
        backend="llamacpp",
        installation=Installation(backend="llamacpp", kind="binary", location="llama-server"),
        model=Model(reference="x", spec=spec),
        knobs=settable(recorded_flags(), gpus=False),
        defaults=Settings(config=recorded().effective),
        **more,
    )


def test_performance_cores_that_llamacpp_passes_over_are_named():
    (found,) = hybrid_threads(context())
    assert found.assignments == Config({"threads": 8})
    assert "4 of the 8 performance cores" in found.reason


@pytest.mark.parametrize(
    "other",
    [
        context(system="Darwin"),
        context(cpu=evolve(ARROW_LAKE, logical=28)),  # with two threads a fast core
        context(cpu=evolve(ARROW_LAKE, performance_cores=None, efficiency_cores=None)),
        context(cpu=evolve(ARROW_LAKE, quota_cpus=4.0, usable=4.0)),
        context(current=Settings(config=Config({"threads": 6}))),
    ],
)
def test_a_count_that_is_right_or_the_users_own_is_left_alone(other):
    assert list(hybrid_threads(other)) == []


def test_speculation_is_suggested_for_latency_alone_and_without_a_promise():
    (found,) = speculation(context(goal=Goal.LATENCY))
    assert isinstance(found, Suggestion)
    assert found.confidence == "low"
    assert "depends on the text" in found.effect
    assert problems(context().knobs, found.assignments) == ()
    for goal in (Goal.BALANCED, Goal.THROUGHPUT, Goal.MEMORY):
        (kept,) = speculation(context(goal=goal))
        assert isinstance(kept, Kept)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (context(goal=Goal.LATENCY, spec=None), "Nothing is known of the model"),
        (
            context(goal=Goal.LATENCY, current=Settings(config=Config({"spec_type": "ngram-mod"}))),
            "ngram-mod is set",
        ),
        (evolve(context(goal=Goal.LATENCY), knobs=()), None),
    ],
)
def test_speculation_is_left_alone_where_nothing_can_be_said_for_it(other, said):
    found = [entry.reason for entry in speculation(other)]
    assert [said in reason for reason in found] == ([] if said is None else [True])


def test_a_model_of_experts_gains_less_and_one_with_a_state_is_measured_first():
    (found,) = speculation(context(goal=Goal.LATENCY, spec=evolve(SPEC, experts_total=8)))
    assert "experts of its own" in found.effect
    state = RecurrentState(layers=1, conv_kernel=4, inner_size=1, state_size=1)
    (kept,) = speculation(context(goal=Goal.LATENCY, spec=evolve(SPEC, recurrent=state)))
    assert "recurrent state" in kept.reason
