"""``velollm tune`` on a server that runs already, by a backend that cannot start any."""

from __future__ import annotations

import pytest

from velollm_core.cli.tune import command
from velollm_core.config import Choices, Config, Knob, Role
from velollm_core.documents import loads, read
from velollm_core.testing.fakes import AttachedBackend, Script
from velollm_core.tune.spec import KIND, MAJOR, PROFILE_KIND, PROFILE_MAJOR, Profile, TuneResult

BEFORE = Config({"style": "plain", "slow_start": True})
WORDS = (
    *("--force", "--json", "--workload", "short", "--requests", "1", "--warmup", "0"),
    *("--max-tokens", "4", "--launches", "6", "--name", "mine"),
)


def knob(name, *values, change):
    return Knob(
        name=name,
        role=Role.OTHER,
        domain=Choices(values),
        summary=f"{name} of the fake",
        source="the fake",
        change=change,
    )


@pytest.fixture
def backend():
    script = Script(
        knobs=(
            knob("style", "plain", "quick", change="reload"),
            knob("slow_start", True, False, change="restart"),
        ),
        defaults=BEFORE,
        token_ms=lambda config: 2.0 if config["style"] == "quick" else 8.0,
        token_noise=0.01,
    )
    return AttachedBackend(script)


def test_what_it_lets_change_is_tuned_and_what_needs_a_restart_is_named(
    planted_command, backend, tmp_path
):
    done = planted_command(command, *WORDS, backend=backend)
    assert done.code == 0, done.err
    assert "only what needs no restart is tuned" in done.err
    result = loads(done.out, KIND, MAJOR, TuneResult, "standard output")
    assert result.changes == Config({"style": "quick"})
    assert result.failed == 0
    assert [(left.name, "would need a restart" in left.reason) for left in result.untouched] == [
        ("slow_start", True)
    ]
    assert not any("slow_start" in config for config in backend.server.asked)
    path = tmp_path / "DATA" / "profiles" / "mine.json"
    profile = read(path, PROFILE_KIND, PROFILE_MAJOR, Profile)
    assert profile.config == Config({"style": "quick"})
    assert profile.base == BEFORE


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_in_the_end_it_is_as_it_was(planted_command, backend, seed):
    assert planted_command(command, *WORDS, "--seed", seed, backend=backend).code == 0
    assert {config.get("style") for config in backend.server.asked} >= {"plain", "quick"}
    assert backend.server.config == BEFORE


def test_a_profile_that_needs_no_restart_is_checked_on_it(planted_command, backend):
    assert planted_command(command, *WORDS, backend=backend).code == 0
    check = ("--check", "mine", "--force", "--launches", "6")
    server = AttachedBackend(backend.script)
    done = planted_command(command, *check, backend=server)
    assert done.code == 0, done.err
    assert not any("slow_start" in config for config in server.server.asked)
    assert server.server.config == BEFORE
