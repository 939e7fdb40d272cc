"""Results that reports are tried on."""

from __future__ import annotations

import random

import pytest
from attrs import evolve

from velollm_core.config import Config, LeftOut
from velollm_core.errors import FailureKind
from velollm_core.experiment.comparison import comparisons
from velollm_core.experiment.spec import EngineRecord, Failure, Question


@pytest.fixture
def three_concurrencies(build):
    """Two workloads at 1, 4 and 8 clients, three launches, 60 tokens an answer."""

    def launch(block, gap_ms):
        phases = [
            build.phase(
                [
                    build.sample(
                        index,
                        gap_ms=gap_ms * clients,
                        tokens=60,
                        prompt_sha256=f"{name} {clients} {index}",
                    )
                    for index in range(40)
                ],
                name,
                clients,
                wall_ms=20_000.0 / clients**0.5,
            )
            for name in ("short", "summarize")
            for clients in (1, 4, 8)
        ]
        return build.trial(phases, block)

    return build.result([launch(0, 7.9), launch(1, 8.0), launch(2, 8.1)])


@pytest.fixture
def one_launch(build):
    return build.result([build.trial([build.phase([build.sample(i) for i in range(4)])])])


@pytest.fixture
def with_failures(build):
    """Of three launches one ran out of memory; in another a request was refused."""
    samples = [build.sample(index) for index in range(4)]
    refused = evolve(samples[3], error="the server said no", failure=FailureKind.REFUSED)
    lost = Failure(kind=FailureKind.OUT_OF_MEMORY, message="cannot allocate 9 GiB")
    return build.result(
        [
            build.trial([build.phase(samples)], 0),
            build.trial([build.phase([*samples[:3], refused])], 1),
            build.trial([], 2, failure=lost),
        ]
    )


@pytest.fixture
def silent_server(build):
    """A running server that tells neither tokens nor times, and no model that can be read."""
    samples = [
        build.sample(
            index,
            event_tokens=(0,) * 21,
            prompt_tokens=None,
            cached_tokens=None,
            output_tokens=None,
            timings=None,
        )
        for index in range(4)
    ]
    trial = build.trial([build.phase(samples)], load_ms=None, peak_rss_bytes=None)
    arm = build.arm(
        mode="attach",
        engine=EngineRecord(backend="openai", kind="server"),
        config=Config(),
        origins={},
    )
    arm = evolve(arm, model=evolve(arm.model, name="some-model", spec=None))
    return build.result([trial], unit="block", arms=(arm,))


@pytest.fixture
def two_arms(build):
    """The user's own settings against the engine's defaults."""
    arms = (
        build.arm("defaults", config=Config({"slots": 4}), origins={"slots": "engine default"}),
        build.arm(
            "current",
            left_out=(LeftOut("--tools", "environment LLAMA_ARG_TOOLS", "it runs programs"),),
        ),
    )
    phases = [build.phase([build.sample(index) for index in range(4)])]
    trials = [build.trial(phases, block, arm.name) for block in (0, 1) for arm in arms]
    return build.result(trials, arms=arms)


@pytest.fixture
def versus(build):
    """``versus(...)`` measures two arms by turns on a machine that slows down by 6 % meanwhile.

    ``changed`` takes ``factor`` times as long a token; in the blocks ``lost`` it fails.
    """

    def measure(*, pairs=12, factor=0.9, cells=(("short", 1),), lost=(), names=("now", "new")):
        draw = random.Random(8)
        trials = []
        for block in range(pairs):
            for name, slower in zip(names, (1.0, factor), strict=True):
                if name == names[1] and block in lost:
                    failure = Failure(kind=FailureKind.CRASH, message="it fell over")
                    trials.append(build.trial([], block, name, failure=failure))
                    continue
                phases = [
                    build.phase(
                        [
                            build.sample(
                                index,
                                first_ms=(40 + 60 * draw.random() ** 3) * clients,
                                gap_ms=8 * slower * launch * clients**0.6,
                                prompt_sha256=f"{workload} {clients} {block} {index}",
                                output_sha256=f"{workload} {clients} {block} {index}",
                            )
                            for index in range(6)
                        ],
                        workload,
                        clients,
                    )
                    for workload, clients in cells
                    for launch in [draw.gauss(1, 0.02) * (1 + 0.06 * block / pairs)]
                ]
                trials.append(build.trial(phases, block, name))
        question = Question(baseline=names[0], metric="client_decode_tok_s")
        result = evolve(build.result(trials), question=question)
        return evolve(result, comparisons=comparisons(result))

    return measure
