"""What the options of ``bench`` come to, as an experiment, on engines that are planted."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from attrs import define, field

from velollm_core.backends.contract import Installation
from velollm_core.cli.bench import command
from velollm_core.cli.choose import Chosen
from velollm_core.cli.plan import plan
from velollm_core.cli.state import State
from velollm_core.config import Config, Settings
from velollm_core.errors import UsageError
from velollm_core.experiment.spec import Question
from velollm_core.testing.fakes import FakeBackend


@define
class Told(FakeBackend):
    """An engine that tells its settings."""

    startable: str = "-X mode=own"
    own: Config = field(factory=lambda: Config({"threads": 4, "cache": True}))

    def current(self, installation, model, environ):
        return Settings(config=self.own, origins=dict.fromkeys(self.own, "environment"))

    def defaults(self, installation, model):
        config = Config({"threads": 8, "cache": True})
        return Settings(config=config, origins=dict.fromkeys(config, "engine default"))


@pytest.fixture
def planned():
    def make(*words, kind="binary", own: Mapping | None = None):
        state = State()
        state.quiet = True
        state.environ = {"VELOLLM_PLUGINS": "core-workloads"}
        backend = Told() if own is None else Told(own=Config(own))
        installation = Installation(backend="fake", kind=kind, location="http://fake")
        chosen = Chosen(backend, installation, backend.models(installation)[0])
        with command.make_context("bench", list(words), obj=state) as context:
            return plan(state, chosen, context.params)

    return make


def configs(experiment):
    return {arm.name: dict(arm.settings.config) for arm in experiment.arms}


def test_without_a_change_there_is_one_arm_three_launches_and_no_question(planned):
    experiment = planned()
    assert configs(experiment) == {"current": {"threads": 4, "cache": True}}
    assert (experiment.blocks, experiment.question) == (3, None)


def test_a_change_makes_two_arms_twelve_pairs_and_a_question(planned):
    experiment = planned("--ab", "threads=2,cache=off", "--set", "threads=3")
    assert configs(experiment) == {
        "current": {"threads": 3, "cache": True},
        "changed": {"threads": 2, "cache": False},
    }
    assert experiment.blocks == 12
    assert experiment.question == Question(baseline="current", metric="output_tok_s")
    assert experiment.arms[1].settings.origins == {"threads": "--ab", "cache": "--ab"}


def test_number_metric_and_margin_are_the_users(planned):
    experiment = planned(
        "--ab", "same", "--launches", "20", "--metric", "total_ms", "--margin", "5%"
    )
    assert experiment.blocks == 20
    assert experiment.question == Question(baseline="current", metric="total_ms", margin=0.05)
    assert [arm.name for arm in experiment.arms] == ["current", "again"]


def test_with_baseline_the_change_is_laid_over_the_defaults(planned):
    experiment = planned("--baseline", "--ab", "threads=2")
    assert configs(experiment) == {
        "defaults": {"threads": 8, "cache": True},
        "changed": {"threads": 2, "cache": True},
    }
    assert experiment.question.baseline == "defaults"
    own = planned("--baseline", "--ab", "current")
    assert configs(own) == {
        "defaults": {"threads": 8, "cache": True},
        "current": {"threads": 4, "cache": True},
    }


def test_on_a_running_server_both_arms_set_what_differs_and_nothing_else(planned):
    experiment = planned("--ab", "cache=off", kind="server")
    assert configs(experiment) == {"current": {"cache": True}, "changed": {"cache": False}}
    assert experiment.unit == "block"
    assert {arm.mode for arm in experiment.arms} == {"attach"}
    assert experiment.blocks == 12
    assert configs(planned("--ab", "same", kind="server")) == {"current": {}, "again": {}}


def test_what_a_running_server_cannot_do_is_refused(planned):
    with pytest.raises(UsageError, match="threads cannot be changed on a server that runs") as told:
        planned("--ab", "threads=2", kind="server")
    assert told.value.hint == "Let VeloLLM start the server: -X mode=own"
    with pytest.raises(UsageError, match="--baseline needs") as told:
        planned("--baseline", kind="server")
    assert told.value.hint == "Let VeloLLM start the server: -X mode=own, or leave out --baseline."
    with pytest.raises(UsageError, match="does not tell what cache is now"):
        planned("--ab", "cache=off", kind="server", own={})
    assert configs(planned("--ab", "cache=off", "--set", "cache=on", kind="server", own={})) == {
        "current": {"cache": True},
        "changed": {"cache": False},
    }
    with pytest.raises(UsageError, match="--baseline needs a server that VeloLLM starts"):
        planned("--baseline", "--ab", "cache=off", kind="server")


def test_own_settings_against_themselves_are_no_comparison(planned):
    with pytest.raises(UsageError, match="compares your own settings with themselves"):
        planned("--ab", "current")
