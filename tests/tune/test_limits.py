"""What is required and what is forbidden holds, however fast it would be without."""

from __future__ import annotations

from velollm_core.backends.advice import Requirements
from velollm_core.config import Config
from velollm_core.experiment.monitor import Observed
from velollm_core.testing.fakes import NoMonitor
from velollm_core.tune.constraints import parse_constraint
from velollm_core.tune.spec import Conclusion, Fate


class Scales(NoMonitor):
    """Sees the memory that a fake says it takes."""

    def start(self, session, on_danger):
        del on_danger
        return Weighed(session.memory().rss_bytes)


class Weighed:
    def __init__(self, taken):
        self.taken = taken

    def stop(self):
        return Observed(peak_rss_bytes=self.taken)


def test_requirements_hold_in_everything_that_is_started(tuning):
    def token_ms(config):
        return 100.0 * config["context"] / 4096 * config["slots"] / 4  # less would be faster

    for unified in (True, False):
        wanted = Requirements(context_tokens=2048, parallel=4)
        current = Config({"context": 8192, "unified": unified})
        task = tuning.task(
            tuning.script(token_ms=token_ms, current=current, seed=2),
            seed=2,
            clients=2,
            objectives=("throughput",),
            budget_s=300.0,
            requirements=wanted,
            only=("slots", "unified"),
        )
        found = tuning.run(task)
        own = [config for config in tuning.launched(task) if config != tuning.defaults]
        assert len({str(config) for config in own}) > 3
        for config in own:
            assert config["slots"] >= 4
            assert config["context"] >= 2048 * (1 if config["unified"] else config["slots"])
            assert config["context"] >= 2048 * 4
        assert found.conclusion is not Conclusion.FASTER


def test_what_does_not_hold_what_is_required_is_mended_first(tuning):
    task = tuning.task(
        tuning.script(), requirements=Requirements(context_tokens=4096, parallel=8), only=("poll",)
    )
    found = tuning.run(task)
    assert found.stages[0].leader == Config({"slots": 8, "context": 32768})
    assert any("does not hold what is required" in note for note in found.notes)
    searched = [config for config in tuning.launched(task) if config != tuning.defaults]
    assert {(config["slots"], config["context"]) for config in searched} == {(8, 32768)}


def test_what_does_not_hold_what_is_required_cannot_lead(tuning):
    script = tuning.script(token_ms=lambda config: 100.0 * (0.9 if config["slots"] == 4 else 1.0))
    task = tuning.task(
        script, clients=4, only=("slots", "threads"), requirements=Requirements(parallel=8)
    )
    found = tuning.run(task)
    assert found.best["slots"] >= 8
    assert found.answers or "slots=" in found.why


def test_a_limit_is_kept_however_fast_it_would_be_without(tuning):
    task = tuning.task(
        tuning.script(
            token_ms=lambda config: 100.0 * {4: 0.7, 7: 0.8}.get(config["threads"], 1.0),
            memory_bytes=lambda config: 2**30 * (3 if config["threads"] == 4 else 1),
        ),
        only=("threads",),
        constraints=(parse_constraint("memory<2GiB"),),
    )
    found = tuning.run(task, monitor=Scales())
    assert found.changes == Config({"threads": 7})
    fates = {entry.changes["threads"]: entry for entry in tuning.tried(found, "screen")}
    assert fates[4].fate is Fate.LIMIT
    assert "memory<2GiB" in fates[4].why


def test_what_would_not_fit_is_never_started(tuning):
    task = tuning.task(
        tuning.script(memory_bytes=lambda config: 2**40 if config["ubatch"] > 512 else 1),
        only=("ubatch",),
    )
    tuning.run(task)
    assert {config["ubatch"] for config in tuning.launched(task)} <= {64, 128, 256, 512}


def test_a_limit_that_is_never_told_is_said_after_the_first_trial(tuning):
    task = tuning.task(
        tuning.script(), only=("threads",), constraints=(parse_constraint("gpu_memory<6GiB"),)
    )
    found = tuning.run(task)
    assert found.conclusion is Conclusion.OPEN
    assert "gpu_memory<6GiB: the server does not tell" in found.why
    assert len(found.trials) == 1
