"""A server that runs already is tuned by what it lets change, and left as it was."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.config import Choices, Config, Range, Role, Settings
from velollm_core.errors import Unavailable
from velollm_core.experiment.journal import Journal
from velollm_core.testing.fakes import AttachedBackend
from velollm_core.tune.keep import tuned
from velollm_core.tune.spec import Conclusion

BEFORE = Config({"threads": 8, "poll": 50, "mode": "a"})
BEST = Config({"poll": 100, "mode": "b"})


def token_ms(config):
    """Another mode is faster, and waiting longer in either; more threads would be, too."""
    mode, poll = config["mode"] == "b", config["poll"] == 100
    return 100.0 * (0.7 if mode else 1.0) * (0.8 if poll else 1.0) * 8 / config["threads"]


@pytest.fixture
def knobs(tuning):
    return (
        tuning.knob("threads", Role.THREADS_DECODE, Range(1, 64)),
        tuning.knob("poll", Role.OTHER, Range(1, 100), numerics="exact", change="per_request"),
        tuning.knob("mode", Role.OTHER, Choices(("a", "b")), numerics="exact", change="reload"),
    )


@pytest.fixture
def attached(tuning, knobs):
    """Makes a task on a server that nobody here can start: ``attached(seed=1)``. With ``server``
    it is one of before.
    """

    def make(server=None, seed=0, **script):
        made = tuning.script(
            knobs=knobs,
            defaults=BEFORE,
            token_ms=token_ms,
            launch_noise=0.0,
            token_noise=0.02,
            seed=seed,
            **script,
        )
        backend = AttachedBackend(made)
        if server is not None:
            backend.server = server
        return tuning.task(made, backend=backend, mode="attach", seed=seed)

    return make


@pytest.fixture
def keep(tuning, tmp_path):
    """Tunes, and keeps the run: ``keep(task, resumed=run)``."""
    journal = Journal(tmp_path / "journal.sqlite3")

    def tune(task, **more):
        return tuned(
            task,
            journal=journal,
            clock=task.backend.script.clock,
            surroundings=tuning.surroundings(),
            pause=tuning.pause(task),
            **more,
        )

    return tune


def stops_where_it_was_changed(server):
    """Ctrl-C after the first trial of other settings than the server had."""

    def observe(progress):
        trial = progress.progress is not None and progress.progress.event == "trial"
        if trial and server.config != BEFORE:
            raise KeyboardInterrupt

    return observe


def test_it_is_the_server_of_somebody_else_and_cannot_be_started(attached, velollm_place):
    task = attached()
    with pytest.raises(Unavailable, match="cannot start"):
        task.backend.launch(task.installation, task.model, task.current, velollm_place())


def test_what_it_lets_change_is_tuned_and_what_needs_a_restart_is_left_alone(attached, keep):
    task = attached()
    outcome = keep(task)
    result = outcome.result
    assert result.conclusion is Conclusion.FASTER
    assert result.changes == BEST
    assert result.failed == 0
    assert [answer.baseline for answer in result.answers] == ["current"]
    (left,) = result.untouched
    assert left.name == "threads"
    assert "restart of a server that VeloLLM did not start" in left.reason
    assert not any("threads" in config for config in task.backend.server.asked)
    assert {trial.effective["threads"] for trial in outcome.trials} == {8}


@pytest.mark.parametrize("seed", range(4))
def test_in_the_end_it_is_as_it_was(attached, keep, seed):
    task = attached(seed=seed)
    assert keep(task).result.complete
    assert BEST.items() <= {pair for config in task.backend.server.asked for pair in config.items()}
    assert task.backend.server.config == BEFORE


def test_after_ctrl_c_it_is_as_it_was_and_the_rest_is_measured_later(attached, keep):
    task = attached()
    server = task.backend.server
    cut = keep(task, observe=stops_where_it_was_changed(server))
    assert cut.interrupted
    assert any(trial.effective != BEFORE for trial in cut.trials)
    assert server.config == BEFORE
    whole = keep(attached(server=server), resumed=cut.result.run)
    assert whole.result.complete
    assert whole.result.changes == BEST
    assert {(t.arm, t.key, t.block) for t in cut.trials if t.failure is None} <= {
        (t.arm, t.key, t.block) for t in whole.trials
    }
    assert server.config == BEFORE


def test_what_it_does_not_tell_is_not_changed_as_it_could_not_be_set_back(attached, keep):
    task = evolve(attached(), current=Settings(config=Config({"mode": "a"})), defaults=Settings())
    result = keep(task).result
    assert result.changes == Config({"mode": "b"})
    reasons = {entry.name: entry.reason for entry in result.untouched}
    assert set(reasons) == {"threads", "poll"}
    assert "could not be set back" in reasons["poll"]
    assert not any("poll" in config for config in task.backend.server.asked)


def test_a_server_that_runs_already_is_tuned_by_what_it_lets_change_and_set_back(tuning, knobs):
    script = tuning.script(
        knobs=knobs,
        defaults=BEFORE,
        token_ms=lambda config: 100.0 * (0.7 if config["mode"] == "b" else 1.0),
    )
    task = tuning.task(script, mode="attach")
    found = tuning.run(task)
    assert found.changes["mode"] == "b"
    assert [entry.name for entry in found.untouched] == ["threads"]
    assert "restart" in found.untouched[0].reason
    assert not any("threads" in config for config in tuning.launched(task))
    assert [answer.baseline for answer in found.answers] == ["current"]
