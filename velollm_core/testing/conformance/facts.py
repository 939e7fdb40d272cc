"""What an author tells the suites about a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from attrs import field, frozen

from velollm_core.backends.contract import Backend, Capability, Request, Session
from velollm_core.config import Config


@frozen(kw_only=True)
class Facts:
    """Everything that the suites cannot find out by themselves.

    Attributes:
        backend: the object that the plugin registers.
        registered: whether the plugin is installed here, so that VeloLLM has to find it.
        options: ``-X`` values that lead to the engine.
        environ: variables to find the engine with; ``None``: those of the test run.
        absent: ``-X`` values that name something that is not there.
        mode: whether sessions are launched or attached to.
        url_option: of an attached server, the name of the option that holds its URL: the suites
            put a relay in front of the server and cut the line, if it is an ``http`` URL of this
            machine.
        model: reference of the model as ``--model`` takes it, or the name of a loaded one; empty:
            the first that the backend names itself.
        capabilities: what a session claims to tell, no more and no less.
        config: laid over the defaults in every session, for example to keep an engine small.
        change: knobs that need a restart, each with a value that is in neither the defaults nor
            ``config``; all are changed at once.
        live: knobs that a running session can change, each with a value that it does not have.
        deterministic: whether the same greedy request gives the same answer twice.
        whole_answer: the text that the server gives to a request when it is asked without
            streaming, and around the backend; ``None``: there is no such way.
        launch_s: longest wait for a server to be ready.
        answer_s: longest wait for one answer.
        patience_s: longest wait for what has to be over at once: a probe, a closing, the end of
            an answer whose server died.
    """

    backend: Backend
    registered: bool = True
    options: Mapping[str, str] = field(factory=dict)
    environ: Mapping[str, str] | None = None
    absent: Mapping[str, str] = field(factory=dict)
    mode: Literal["launch", "attach"] = "launch"
    url_option: str = ""
    model: str = ""
    capabilities: frozenset[Capability] = frozenset()
    config: Config = Config()
    change: Config = Config()
    live: Config = Config()
    deterministic: bool = True
    whole_answer: Callable[[Session, Request], str] | None = None
    launch_s: float = 120.0
    answer_s: float = 120.0
    patience_s: float = 20.0
