"""What an experiment gives: blocks, order, failures as outcomes, resume, interruption."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from velollm_core.backends.contract import Message
from velollm_core.config import Config, Settings
from velollm_core.errors import FailureKind, LaunchError
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.journal import Journal, RunJournal, resume
from velollm_core.experiment.records import arm_record
from velollm_core.experiment.runner import Progress, Surroundings, run
from velollm_core.experiment.spec import (
    Arm,
    Experiment,
    ExperimentResult,
    Phase,
    Trial,
    Workload,
)
from velollm_core.testing.fakes import FakeBackend, FakeSession, NoMonitor, Script


def prompt(seed: int, block: int, index: int) -> tuple[Message, ...]:
    return (Message(role="user", content=f"{seed}/{block}/{index}"),)


WORKLOAD = Workload(name="w", summary="", max_tokens=6, messages=prompt, digest="d")


def arm(backend: FakeBackend, name: str = "current", mode: str = "launch", **config) -> Arm:
    installation = backend.probe({}, {})[0]
    return Arm(
        name=name,
        backend=backend,
        installation=installation,
        model=backend.models(installation)[0],
        settings=Settings(config=Config(config)),
        mode=mode,
    )


def execute(
    *arms: Arm,
    journal: RunJournal | None = None,
    available_bytes: int = 2**30,
    after_block: Callable | None = None,
    observe: Callable[[Progress], None] = lambda _: None,
    **experiment,
) -> ExperimentResult:
    plan = {"phases": (Phase(workload=WORKLOAD, requests=3),), "blocks": 2} | experiment
    return run(
        Experiment(arms=arms, **plan),
        journal=journal or RunJournal("r"),
        clock=SystemClock(),
        surroundings=Surroundings(
            environ={},
            available_bytes=lambda: available_bytes,
            monitor=NoMonitor(),
            hardware_fingerprint="here",
        ),
        after_block=after_block,
        observe=observe,
    )


def measured(trial: Trial, phase: int = 0):
    return [sample for sample in trial.phases[phase].samples if not sample.warmup]


def test_every_block_holds_every_arm_once_in_an_order_that_the_seed_decides():
    backend = FakeBackend()
    arms = [arm(backend, name) for name in "abcd"]
    orders = [
        [
            [t.arm for t in execute(*arms, blocks=6, seed=seed).trials if t.block == b]
            for b in range(6)
        ]
        for seed in (1, 1, 2)
    ]
    assert all(sorted(block) == list("abcd") for order in orders for block in order)
    assert orders[0] == orders[1] != orders[2]
    assert len({tuple(block) for block in orders[0]}) > 1


def test_warm_up_is_recorded_apart_and_every_request_is_fresh():
    backend = FakeBackend()
    result = execute(arm(backend), phases=(Phase(workload=WORKLOAD, requests=4, warmup=2),) * 2)
    for trial in result.trials:
        for phase in trial.phases:
            assert [sample.warmup for sample in phase.samples].count(True) == 2
            assert len(phase.samples) == 6
    for session in backend.sessions:
        assert len(set(session.prompts)) == len(session.prompts) == 12


def test_arms_of_a_block_get_the_same_prompts_and_another_block_gets_others():
    result = execute(arm(FakeBackend(), "a"), arm(FakeBackend(), "b"))
    hashes = {
        (t.arm, t.block): {s.prompt_sha256 for p in t.phases for s in p.samples}
        for t in result.trials
    }
    assert hashes["a", 0] == hashes["b", 0]
    assert not hashes["a", 0] & hashes["a", 1]


def test_a_sample_holds_what_the_client_saw_and_what_the_server_said():
    trial = execute(arm(FakeBackend(Script(token_ms=lambda _: 10.0, prompt_ms=30.0)))).trials[0]
    sample = measured(trial)[0]
    assert sample.first_token_ms == 30.0
    assert sample.event_ms == (30.0, 40.0, 50.0, 60.0, 70.0, 80.0)
    assert sample.event_tokens == (1,) * 6
    assert sample.total_ms == 80.0
    assert sample.output_tokens == 6
    assert sample.timings.prompt_ms == 30.0
    assert sample.text is None
    assert trial.load_ms == 500.0


def test_texts_are_kept_only_when_asked_for():
    trial = execute(arm(FakeBackend()), keep_text=True).trials[0]
    assert measured(trial)[0].text == " 0 1 2 3 4 5"


@pytest.mark.parametrize("kind", [FailureKind.CRASH, FailureKind.TIMEOUT])
def test_a_server_that_fails_in_a_request_ends_its_trial_and_not_the_run(kind):
    backend = FakeBackend(Script(fail_request={2: kind}))
    result = execute(arm(backend), blocks=3)
    assert [trial.failure.kind for trial in result.trials] == [kind] * 3
    assert len(measured(result.trials[0])) == 2, "one whole answer, and half of the one that failed"
    assert measured(result.trials[0])[-1].event_ms
    assert all(session.closed for session in backend.sessions)


def test_a_refused_request_costs_that_request_only():
    backend = FakeBackend(Script(fail_request={2: FailureKind.REFUSED}))
    trial = execute(arm(backend)).trials[0]
    assert trial.failure is None
    assert [sample.error is None for sample in measured(trial)] == [True, False, True]


def test_a_trial_whose_every_request_is_refused_has_failed():
    backend = FakeBackend(Script(fail_request=dict.fromkeys(range(10), FailureKind.REFUSED)))
    trial = execute(arm(backend)).trials[0]
    assert trial.failure.kind is FailureKind.REFUSED
    assert "every request of w failed" in trial.failure.message


def test_a_launch_that_fails_is_an_outcome_and_the_run_goes_on():
    backend = FakeBackend(Script(fail_launch={0: FailureKind.OUT_OF_MEMORY}))
    result = execute(arm(backend), blocks=2)
    assert result.trials[0].failure.kind is FailureKind.OUT_OF_MEMORY
    assert result.trials[1].failure is None


def test_what_does_not_fit_into_memory_is_not_started():
    backend = FakeBackend(Script(footprint_bytes=2**31))
    trial = execute(arm(backend), available_bytes=2**30).trials[0]
    assert trial.failure.kind is FailureKind.OUT_OF_MEMORY
    assert "2.0 GiB" in trial.failure.message
    assert backend.sessions == []


def test_an_engine_that_ignores_a_knob_is_caught_and_named():
    backend = FakeBackend(Script(ignores=frozenset({"threads"})))
    trial = execute(arm(backend, threads=8)).trials[0]
    (mismatch,) = trial.mismatches
    assert (mismatch.knob, mismatch.expected, mismatch.found) == ("threads", 8, 1)


def test_arms_dropped_after_a_block_are_not_run_again():
    backend = FakeBackend()

    def drop(block, trials):
        return ["b"] if block == 1 else []

    result = execute(arm(backend, "a"), arm(backend, "b"), blocks=4, after_block=drop)
    assert [t.block for t in result.trials if t.arm == "b"] == [0, 1]
    assert [t.block for t in result.trials if t.arm == "a"] == [0, 1, 2, 3]
    assert result.dropped == ("b",)


def test_a_run_ends_when_every_arm_is_dropped():
    result = execute(arm(FakeBackend(), "a"), blocks=9, after_block=lambda *_: ["a"])
    assert len(result.trials) == 1


def test_attached_arms_share_one_server_alternate_and_never_find_each_others_prompts():
    backend = FakeBackend()
    result = execute(
        arm(backend, "a", mode="attach", cache=True),
        arm(backend, "b", mode="attach", cache=False),
        blocks=3,
        unit="block",
    )
    assert len(backend.sessions) == 2, "one session an arm for the whole run"
    assert [trial.effective["cache"] for trial in result.trials if trial.arm == "b"] == [False] * 3
    prompts = [set(session.prompts) for session in backend.sessions]
    assert not prompts[0] & prompts[1]


def test_a_knob_that_needs_a_restart_is_refused_on_an_attached_server():
    trial = execute(arm(FakeBackend(), mode="attach", threads=4), unit="block").trials[0]
    assert trial.failure.kind is FailureKind.REFUSED
    assert "restart" in trial.failure.message


def test_an_attached_server_that_failed_is_attached_to_again():
    backend = FakeBackend(Script(fail_request={1: FailureKind.CRASH}))
    result = execute(arm(backend, mode="attach"), unit="block", blocks=2)
    assert [trial.failure.kind for trial in result.trials] == [FailureKind.CRASH] * 2
    assert len(backend.sessions) == 2


def test_concurrency_sends_every_request_once_and_keeps_conversations_together():
    seen: list[tuple[int, str]] = []

    def messages(seed, block, index):
        seen.append((index, threading.current_thread().name))
        return (Message(role="user", content=str(index)),)

    talk = evolve(WORKLOAD, messages=messages, group=3)
    result = execute(
        arm(FakeBackend()),
        phases=(Phase(workload=talk, requests=12, concurrency=4, warmup=0),),
        blocks=1,
    )
    assert sorted(index for index, _ in seen) == list(range(12))
    for first in range(0, 12, 3):
        clients = {name for index, name in seen if first <= index < first + 3}
        assert len(clients) == 1
    assert len(measured(result.trials[0])) == 12


def test_a_phase_with_a_duration_goes_on_until_it_is_over():
    trial = execute(
        arm(FakeBackend()), blocks=1, phases=(Phase(workload=WORKLOAD, requests=2, duration_s=0.2),)
    ).trials[0]
    assert len(measured(trial)) > 2


def test_a_resumed_run_repeats_no_finished_trial(tmp_path):
    journal = Journal(tmp_path / "j.sqlite3")
    journal.start("r", created_at="now", kind="benchmark", head={})
    backend = FakeBackend()
    first = execute(
        arm(backend, "a"), arm(backend, "b"), blocks=2, journal=RunJournal("r", journal)
    )
    again = execute(arm(backend, "a"), arm(backend, "b"), blocks=3, journal=resume(journal, "r"))
    assert len(backend.sessions) == 6
    assert again.trials[:4] == first.trials


def test_another_configuration_seed_or_workload_is_never_resumed_from():
    side = RunJournal("r")
    backend = FakeBackend()
    execute(arm(backend, threads=2), blocks=1, journal=side)
    execute(arm(backend, threads=4), blocks=1, journal=side)
    execute(arm(backend, threads=2), blocks=1, journal=side, seed=5)
    changed = evolve(WORKLOAD, digest="other")
    execute(
        arm(backend, threads=2),
        blocks=1,
        journal=side,
        phases=(Phase(workload=changed, requests=3),),
    )
    assert len(backend.sessions) == 4
    execute(arm(backend, threads=2), blocks=1, journal=side)
    assert len(backend.sessions) == 4


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_keeps_what_was_measured_and_ends_the_run():
    def on_request(number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)

    backend = FakeBackend(Script(on_request=on_request))
    side = RunJournal("r")
    result = execute(
        arm(backend), blocks=5, phases=(Phase(workload=WORKLOAD, requests=2000),), journal=side
    )
    assert result.interrupted
    (trial,) = result.trials
    assert trial.failure.kind is FailureKind.INTERRUPTED
    assert len(measured(trial)) >= 2
    assert side.finished("current", trial.key, 0) is None, "a resumed run measures it again"


def test_progress_tells_each_step():
    events: list[Progress] = []
    execute(arm(FakeBackend()), blocks=1, observe=events.append)
    kinds = [event.event for event in events]
    assert kinds[0] == "launching"
    assert kinds[-1] == "trial"
    assert kinds.count("measuring") == 4, "the start, and three requests"


def test_a_backend_that_raises_something_of_its_own_fails_the_trial_with_its_words():
    def on_request(number):
        raise ValueError("the adapter's own fault")

    trial = execute(arm(FakeBackend(Script(on_request=on_request)))).trials[0]
    assert trial.failure.kind is FailureKind.CRASH
    assert "the adapter's own fault" in trial.failure.message


def interrupt_in(number: int, at: int):
    def on_request(current):
        if current == number:
            for _ in range(at):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)

    return on_request


class Closing(FakeSession):
    """A session whose closing is interrupted."""

    def close(self):
        if not self.closed:
            self.closed = True
            raise KeyboardInterrupt


def test_ctrl_c_while_the_server_closes_keeps_the_whole_trial(monkeypatch):
    monkeypatch.setattr("velollm_core.testing.fakes.FakeSession", Closing)
    result = execute(arm(FakeBackend()), blocks=3)
    assert result.interrupted
    (trial,) = result.trials
    assert trial.failure is None
    assert len(measured(trial)) == 3


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_second_ctrl_c_costs_nothing_that_was_measured():
    phases = (Phase(workload=WORKLOAD, requests=3), Phase(workload=WORKLOAD, requests=2000))
    backend = FakeBackend(Script(on_request=interrupt_in(number=8, at=2)))
    result = execute(arm(backend), phases=phases)
    assert result.interrupted
    trial = result.trials[-1]
    assert trial.failure.kind is FailureKind.INTERRUPTED
    assert len(measured(trial, 0)) == 3
    assert measured(trial, 1)


def test_an_interrupted_trial_does_not_take_the_place_of_one_that_came_further():
    side = RunJournal("r")
    first = execute(
        arm(FakeBackend(Script(on_request=interrupt_in(number=4, at=1)))),
        phases=(Phase(workload=WORKLOAD, requests=50),),
        journal=side,
    )
    again = execute(
        arm(FakeBackend(Script(on_request=interrupt_in(number=0, at=1)))),
        phases=(Phase(workload=WORKLOAD, requests=50),),
        journal=side,
    )
    assert measured(first.trials[0])
    assert again.trials == first.trials


@pytest.mark.parametrize("place", ["launch", "footprint", "expected"])
def test_a_backend_that_breaks_anywhere_is_an_outcome_and_the_run_goes_on(place):
    backend = FakeBackend()
    broken = Breaking(place)
    result = execute(arm(broken, "bad"), arm(backend, "good"), blocks=2)
    outcomes = {trial.arm: trial.failure for trial in result.trials}
    assert len(result.trials) == 4
    assert outcomes["good"] is None
    assert "backend fake failed: KeyError" in outcomes["bad"].message


class Breaking(FakeBackend):
    """A backend one of whose methods has a fault of its own."""

    def __init__(self, place):
        super().__init__()
        object.__setattr__(self, "place", place)

    def _break(self, place):
        if self.place == place:
            raise KeyError("oops")

    def launch(self, *arguments):
        self._break("launch")
        return super().launch(*arguments)

    def footprint(self, *arguments):
        self._break("footprint")
        return super().footprint(*arguments)

    def expected(self, *arguments):
        self._break("expected")
        return super().expected(*arguments)


class Alarm(NoMonitor):
    """A monitor that sees memory run out at once."""

    def start(self, session, on_danger):
        threading.Timer(0.1, on_danger, ("only 3 MiB of memory were left",)).start()
        return super().start(session, on_danger)


@pytest.mark.parametrize("unit", ["launch", "block"])
def test_a_trial_that_runs_out_of_memory_ends_at_once_and_the_next_one_starts_afresh(unit):
    started = time.monotonic()
    backend = FakeBackend()
    result = run(
        Experiment(
            arms=(arm(backend, mode="attach" if unit == "block" else "launch"),),
            phases=(Phase(workload=WORKLOAD, requests=1, duration_s=30.0),),
            blocks=2,
            unit=unit,
        ),
        journal=RunJournal("r"),
        clock=SystemClock(),
        surroundings=Surroundings(
            environ={}, available_bytes=lambda: 2**30, monitor=Alarm(), hardware_fingerprint="here"
        ),
    )
    assert time.monotonic() - started < 10
    assert [trial.failure.kind for trial in result.trials] == [FailureKind.OUT_OF_MEMORY] * 2
    assert "3 MiB" in result.trials[0].failure.message
    assert len(backend.sessions) == 2


def test_a_server_that_refuses_everything_is_not_asked_for_ever():
    backend = FakeBackend(Script(fail_request=dict.fromkeys(range(9999), FailureKind.REFUSED)))
    phase = Phase(workload=WORKLOAD, requests=1, duration_s=30.0)
    trial = execute(arm(backend), phases=(phase,), blocks=1).trials[0]
    assert trial.failure.kind is FailureKind.REFUSED
    assert len(trial.phases[0].samples) < 50


def test_a_failed_request_takes_the_time_it_took():
    backend = FakeBackend(
        Script(
            fail_request={1: FailureKind.REFUSED},
            on_request=lambda number: time.sleep(0.3) if number == 1 else None,
        )
    )
    trial = execute(arm(backend), blocks=1, phases=(Phase(workload=WORKLOAD, requests=1),)).trials[
        0
    ]
    assert measured(trial)[0].total_ms >= 300
    assert trial.phases[0].wall_ms >= 300


def test_messages_in_a_trial_name_no_folder_and_no_host():
    model = Path.home() / "secret" / "m.gguf"

    class Talking(FakeBackend):
        def launch(self, *arguments):
            raise LaunchError(
                f"failed to load {model} at http://alice-laptop:80/v1; see {Path.home()}/x"
            )

    plain = arm(FakeBackend())
    talking = evolve(
        plain,
        backend=Talking(),
        model=evolve(plain.model, path=model),
        installation=evolve(plain.installation, location="http://alice-laptop:80"),
    )
    message = execute(talking, blocks=1).trials[0].failure.message
    assert message == "failed to load m.gguf at the server/v1; see ~/x"


def test_trials_of_other_arguments_or_another_server_are_other_trials():
    plain = arm(FakeBackend())
    first = evolve(plain, settings=evolve(plain.settings, extra_args=("--foo", "4")))
    second = evolve(plain, settings=evolve(plain.settings, extra_args=("--foo", "8")))
    attached = [
        evolve(plain, mode="attach", installation=evolve(plain.installation, location=url))
        for url in ("http://127.0.0.1:1", "http://127.0.0.1:2")
    ]
    digests = {arm_record(entry).digest for entry in (plain, first, second, *attached)}
    assert len(digests) == 5
