"""Asking a backend and the plugins, and what a broken one costs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from velollm_core import hookimpl
from velollm_core.backends.advice import Goal, Requirements
from velollm_core.backends.contract import Backend, Installation
from velollm_core.config import Config, Kept, Knob, Range, Role, Settings, Suggestion
from velollm_core.models.spec import Model
from velollm_core.optimize import hooks
from velollm_core.optimize.gather import advise
from velollm_core.optimize.held import as_if_stopped
from velollm_core.plugins import Plugins, load

THREADS = Knob(
    name="threads",
    role=Role.THREADS_DECODE,
    domain=Range(0, 512),
    summary="",
    source="",
    own_choice=0,
)
DEPTH = Knob(name="depth", role=Role.OTHER, domain=Range(0, 9), summary="", source="")


class Made(Backend):
    """An engine with two knobs, which suggests something for one of them."""

    name = "made"

    def probe(self, options, environ):
        return (Installation(backend=self.name, kind="binary", location="x"),)

    def knobs(self, installation, model):
        return (THREADS, DEPTH)

    def defaults(self, installation, model):
        return Settings(config=Config({"threads": 0, "depth": 1}))

    def current(self, installation, model, environ):
        threads = int(environ.get("MADE_THREADS", "0"))
        return Settings(config=Config({"threads": threads, "depth": 1}))

    def suggest(self, context):
        depth = 3 if context.goal is Goal.LATENCY else 2
        yield Suggestion(
            assignments=Config({"depth": depth}), reason="R.", effect="E.", source="made"
        )


def plugins(**modules):
    found = Plugins()
    for name, module in modules.items():
        found.add(lambda module=module: module, name)
    return found


@pytest.fixture
def ask(profiles):
    def ask(machine="container-2-of-64", installation=None, environ=None, **more):
        backend = Made()
        return advise(
            backend,
            installation or backend.probe({}, {})[0],
            Model(reference="m"),
            hardware=profiles.machines[machine],
            environ=environ or {},
            plugins=more.pop("plugins", None) or plugins(core=hooks),
            **more,
        )

    return ask


def test_the_cores_rules_and_the_backends_own_make_one_plan(ask):
    assert dict(ask().changes) == {"depth": 2, "threads": 2}
    assert ask(goal=Goal.LATENCY).changes["depth"] == 3
    assert ask(requirements=Requirements(parallel=3)).requirements.parallel == 3


def test_the_users_own_settings_are_what_is_compared_with(ask):
    assert dict(ask(environ={"MADE_THREADS": "2"}).changes) == {"depth": 2}


def test_the_backend_goes_before_the_plugins(ask):
    class Other:
        @hookimpl
        def velollm_suggest(self, context):
            yield Suggestion(
                assignments=Config({"depth": 7}), reason="R.", effect="E.", source="other"
            )
            yield Kept(knobs=("threads",), reason="Fine.")

    found = ask(plugins=plugins(other=Other()))
    assert dict(found.changes) == {"depth": 2}
    assert [dict(entry.assignments) for entry in found.withdrawn] == [{"depth": 7}]
    assert [entry.knobs for entry in found.kept] == [("threads",)]


def test_a_plugin_that_raises_costs_its_own_suggestions_alone(ask):
    class Broken:
        @hookimpl
        def velollm_suggest(self, context):
            raise ZeroDivisionError

    both = plugins(broken=Broken(), core=hooks)
    assert dict(ask(plugins=both).changes) == {"depth": 2, "threads": 2}
    assert [entry.name for entry in both.broken] == ["broken"]


@pytest.mark.parametrize(
    "bad",
    [
        "threads",
        3,
        [Suggestion(assignments={"depth": 3}, reason="R.", effect="E.", source="s")],
        [Suggestion(assignments=Config({"depth": None}), reason="R.", effect="E.", source="s")],
        [Suggestion(assignments=Config({"depth": [1]}), reason="R.", effect="E.", source="s")],
        [Suggestion(assignments=Config(), reason="R.", effect="E.", source="s")],
        [Suggestion(assignments=Config({"depth": 3}), reason=None, effect="E.", source="s")],
        [Kept(knobs="threads", reason="R.")],
        [Kept(knobs=("threads",), reason=None)],
        (Kept(knobs=("threads",), reason=str(1 / n)) for n in (1, 0)),
    ],
)
def test_a_plugin_that_suggests_nonsense_costs_one_line(ask, bad):
    class Broken:
        @hookimpl
        def velollm_suggest(self, context):
            return bad

    both = plugins(broken=Broken(), core=hooks)
    found = ask(plugins=both)
    assert dict(found.changes) == {"depth": 2, "threads": 2}
    assert found.kept == ()
    assert [entry.name for entry in both.broken] == ["broken"]


def test_what_is_required_of_a_server_on_another_machine_is_not_passed_over(ask):
    server = Installation(backend="made", kind="server", location="http://gpu-box.example:8080")
    found = ask(installation=server, requirements=Requirements(context_tokens=8192, parallel=4))
    assert "8192 tokens a request and 4 requests at once cannot be told here" in found.obstacle


@pytest.mark.parametrize(
    ("location", "proposes"),
    [("http://127.0.0.1:8080", True), ("http://gpu-box.example:8080", False)],
)
def test_of_a_server_on_another_machine_nothing_is_proposed(ask, location, proposes):
    server = Installation(backend="made", kind="server", location=location)
    found = ask(installation=server)
    assert bool(found.proposals) is proposes
    if not proposes:
        assert found.kept[0].knobs == ("threads", "depth")
        assert "another machine" in found.kept[0].reason


def test_the_rules_are_installed_as_a_plugin():
    listed = {entry.name: entry.hooks for entry in load({}).listing()}
    assert listed["core-optimize"] == ("velollm_suggest",)


HOLDS = """
import socket, sys
held = bytearray(96 * 2**20)
held[:: 4096] = b"x" * len(held[::4096])
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS shows only root who listens")
def test_what_a_running_server_holds_counts_as_free_since_it_is_started_anew(profiles):
    used = {"limit_bytes": 2**31, "limit_used_bytes": 2**30}
    machine = profiles.machine(profiles.cpu(4), 64, free=0.5, **used)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        pids = Made().server_pids(Installation(backend="made", kind="server", location=url))
        freed = as_if_stopped(machine, pids)
        server.stdin.close()
    assert pids == (server.pid,)
    more = freed.memory.available_bytes - machine.memory.available_bytes
    assert more >= 96 * 2**20
    assert as_if_stopped(machine, pids) == machine
    if sys.platform == "linux":  # a child is in the control group of its parent
        less = machine.memory.limit_used_bytes - freed.memory.limit_used_bytes
        assert less == more


def test_which_processes_a_server_is_is_for_its_backend_to_say(profiles):
    """Who listens at a port is told only of one's own processes, not of a service."""

    class Service(Made):
        def server_pids(self, installation):
            return (os.getpid(),)

        def suggest(self, context):
            seen.append(context.hardware.memory.available_bytes)
            return ()

    seen = []
    machine = profiles.machine(profiles.cpu(4), 64, free=0.5)
    for kind in ("binary", "server"):
        advise(
            Service(),
            Installation(backend="made", kind=kind, location="http://127.0.0.1:9"),
            Model(reference="m"),
            hardware=machine,
            environ={},
            plugins=plugins(core=hooks),
        )
    assert seen[0] == machine.memory.available_bytes < seen[1]
