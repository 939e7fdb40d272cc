"""Which engine and which model a command takes where the user leaves that open."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from velollm_core.backends.contract import Backend, Installation
from velollm_core.cli.choose import choose
from velollm_core.cli.state import State
from velollm_core.errors import UsageError
from velollm_core.models.spec import Model


class Engine(Backend):
    """Finds what it is told to find, and serves models by name."""

    def __init__(self, name, kinds, serves=(), automatic=True):
        self.name = name
        self.automatic = automatic
        self._kinds = kinds
        self._serves = serves

    def probe(self, options, environ):
        return tuple(Installation(backend=self.name, kind=k, location=k) for k in self._kinds)

    def models(self, installation):
        served = self._serves if installation.kind == "server" else ()
        return tuple(Model(reference=name, served_name=name) for name in served)


@pytest.fixture
def state(monkeypatch):
    """``state(*backends, model=...)``: a command that found those."""
    monkeypatch.setattr(
        "velollm_core.cli.choose.resolve_model", lambda state, reference: Model(reference=reference)
    )

    def make(*backends, model=None, named=None):
        made = State()
        made.model, made.backend, made.quiet = model, named, False
        by_name = {backend.name: backend for backend in backends}
        made.__dict__["plugins"] = SimpleNamespace(
            backends=lambda: by_name, backend=by_name.__getitem__, broken=()
        )
        return made

    return make


def test_a_running_server_is_taken_with_what_it_serves(state):
    chosen = choose(state(Engine("a", ["wheel"]), Engine("b", ["server"], ["qwen"])))
    assert (chosen.backend.name, chosen.model.reference) == ("b", "qwen")


def test_a_server_that_lacks_the_model_is_passed_over_and_named(state, capsys):
    chosen = choose(state(Engine("a", ["wheel"]), Engine("b", ["server"], ["qwen"]), model="demo"))
    assert (chosen.backend.name, chosen.model.reference) == ("a", "demo")
    assert "passed over" in capsys.readouterr().err


def test_where_only_that_server_is_there_it_says_what_it_serves(state):
    with pytest.raises(UsageError, match="does not serve demo; loaded: qwen"):
        choose(state(Engine("b", ["server"], ["qwen"]), model="demo"))


def test_a_backend_that_is_named_is_never_passed_over(state):
    with pytest.raises(UsageError, match="does not serve demo"):
        choose(
            state(
                Engine("a", ["wheel"]),
                Engine("b", ["server"], ["qwen"]),
                model="demo",
                named="b",
            )
        )


def test_a_server_that_would_have_to_be_started_comes_last(state):
    sleeping = Engine("b", ["binary"], automatic="running")
    assert choose(state(sleeping, Engine("c", ["wheel"]))).backend.name == "c"
    assert choose(state(sleeping)).backend.name == "b"
    awake = Engine("b", ["server", "binary"], ["qwen"], automatic="running")
    assert choose(state(awake, Engine("c", ["binary"]))).backend.name == "b"
