"""One block of an experiment on the backend under test."""

from __future__ import annotations

import os

from velollm_core.backends.contract import Message
from velollm_core.config import Settings
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.runner import Surroundings, run
from velollm_core.experiment.spec import Arm, Experiment, Phase, Trial, Workload
from velollm_core.testing.conformance.under_test import UnderTest
from velollm_core.testing.fakes import NoMonitor


def trial_of(under_test: UnderTest) -> Trial:
    """Two requests by two clients, after one of warm-up."""
    attached = under_test.facts.mode == "attach"
    arm = Arm(
        name="conformance",
        backend=under_test.backend,
        installation=under_test.installation,
        model=under_test.model,
        settings=Settings(config=under_test.config),
        mode=under_test.facts.mode,
    )
    workload = Workload(
        name="conformance",
        summary="a few words",
        max_tokens=8,
        messages=lambda seed, block, index: (
            Message(role="user", content=f"Tell me of {seed}, {block} and {index}, in that order."),
        ),
        digest="conformance",
    )
    experiment = Experiment(
        arms=(arm,),
        phases=(Phase(workload=workload, requests=2, concurrency=2),),
        blocks=1,
        unit="block" if attached else "launch",
        force=True,
        launch_timeout_s=under_test.facts.launch_s,
        request_timeout_s=under_test.facts.answer_s,
    )
    surroundings = Surroundings(
        environ=dict(os.environ),
        available_bytes=lambda: 2**63,
        monitor=NoMonitor(),
        hardware_fingerprint="conformance",
    )
    result = run(
        experiment,
        journal=RunJournal("conformance"),
        clock=SystemClock(),
        surroundings=surroundings,
    )
    (trial,) = result.trials
    return trial
