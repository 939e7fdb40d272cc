"""Ollama as VeloLLM's backend: the server that runs, or a private one beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.backends.contract import Backend, Footprint, Installation, Option, Session
from velollm_core.config import Config, Kept, Knob, Problem, Settings, Suggestion
from velollm_core.errors import UsageError, VeloError

if TYPE_CHECKING:
    from velollm_core.backends.advice import AdviceContext
    from velollm_core.backends.changes import Change
    from velollm_core.backends.processes import Place
    from velollm_core.hardware.spec import GpuInfo
    from velollm_core.models.spec import Model

_MODES = ("attach", "private")


class Ollama(Backend):
    """Talks to a running Ollama, or starts one of its own with the same models."""

    name = "ollama"
    automatic = "running"
    startable = "-X mode=private"
    absence = (
        "Ollama is not running: start it with `ollama serve`, or install it from "
        "https://ollama.com/download. Where it runs elsewhere: -X host=HOST:PORT"
    )
    options = (
        Option(name="host", summary="the running server; as OLLAMA_HOST says unless told"),
        Option(name="mode", summary="attach: the running server only; private: one beside it"),
        Option(name="binary", summary="path of the ollama program to start a private server with"),
        Option(
            name="experimental",
            summary="on: also settings of llama.cpp that Ollama does not offer",
        ),
    )

    def probe(
        self, options: Mapping[str, str], environ: Mapping[str, str]
    ) -> tuple[Installation, ...]:
        """The running server, then the program; one of them alone where ``options`` say so.

        Raises:
            Unavailable: what ``options`` name is not there.
            UsageError: they contradict each other.
        """
        from velollm_ollama import server

        mode = options.get("mode")
        if mode not in {None, *_MODES}:
            raise UsageError(f"-X mode={mode} is not known.", f"It takes: {', '.join(_MODES)}.")
        if options.get("experimental", "off") not in {"on", "off"}:
            raise UsageError("-X experimental takes on or off.")
        attached = "host" in options or mode == "attach"
        private = "binary" in options or mode == "private"
        if attached and private:
            raise UsageError(
                "-X host and mode=attach mean the running server, -X binary and mode=private one "
                "that VeloLLM starts.",
                "Leave one of them out.",
            )
        if options.get("experimental") == "on":
            from velollm_ollama import experimental

            experimental.require_seen(experimental.processes())
        found = (
            None if private else server.running(options, environ),
            None if attached else server.program(options, environ),
        )
        return tuple(installation for installation in found if installation is not None)

    def models(self, installation: Installation) -> tuple[Model, ...]:
        """What it has: first what is loaded, then what was pulled last."""
        from velollm_ollama.server import models

        return models(installation)

    def server_pids(self, installation: Installation) -> tuple[int, ...]:
        """The server, also where it is a service of another user's."""
        from velollm_ollama.server import pid_of

        pid = pid_of(installation)
        return () if pid is None else (pid,)

    def in_memory(self, installation: Installation) -> Mapping[str, str]:
        """What the server has loaded, by its names."""
        from velollm_ollama.api import Api
        from velollm_ollama.server import command

        if installation.kind != "server":
            return {}
        with suppress(VeloError):
            held = Api(installation.location).ps()
            return {entry.name: command(installation, "stop", entry.name) for entry in held}
        return {}

    def knobs(self, installation: Installation, model: Model) -> tuple[Knob, ...]:
        """What it can be told, and what of it can be read back from this one."""
        from velollm_ollama import knobs
        from velollm_ollama.readback import unreadable
        from velollm_ollama.server import tells_arguments

        seen, private = tells_arguments(installation), installation.kind == "binary"
        return tuple(
            evolve(knob, unreadable=unreadable(knob.name, seen=seen, private=private))
            for knob in knobs.knobs(installation, model)
        )

    def defaults(self, installation: Installation, model: Model) -> Settings:
        """What it does when nothing is set."""
        from velollm_ollama import settings

        return settings.defaults(installation, model, _gpus(), _parameters(installation, model))

    def current(
        self, installation: Installation, model: Model, environ: Mapping[str, str]
    ) -> Settings:
        """The user's own, over the defaults; see :func:`velollm_ollama.settings.current`."""
        from velollm_core.hardware.probe import Probe
        from velollm_ollama import settings

        return settings.current(
            installation,
            model,
            environ,
            _gpus(),
            _parameters(installation, model),
            probe=Probe(environ=environ),
            pid=_users_server(installation, environ),
        )

    def check(
        self, installation: Installation, model: Model, config: Config
    ) -> tuple[Problem, ...]:
        """Also what would be left to Ollama, and is kept with the model."""
        from velollm_ollama import settings

        found = super().check(installation, model, config)
        if any(settings.cannot_be_said(name, value) for name, value in config.items()):
            found += tuple(settings.drowned(config, _parameters(installation, model, once=True)))
        return found

    def expected(self, installation: Installation, model: Model, config: Config) -> Config:
        """``config`` as Ollama caps it, without what cannot be read back or is left to it.

        A private server is not told the context that Ollama is thought to choose by itself, so that
        it is not demanded back.
        """
        from velollm_ollama.readback import expected
        from velollm_ollama.settings import automatic_context, training_length

        overhead = int(config.get("gpu_overhead", 0))
        guess = automatic_context(_gpus(), training_length(model), overhead)
        if installation.kind != "server" and config.get("num_ctx") == guess:
            config = Config({name: config[name] for name in config if name != "num_ctx"})
        return expected(self.knobs(installation, model), model, config)

    def footprint(
        self, installation: Installation, model: Model, config: Config
    ) -> Footprint | None:
        """Bytes of main memory that a private server takes; not told where a GPU takes a part."""
        if installation.kind == "server":
            return None
        from velollm_ollama.footprint import on_the_host
        from velollm_ollama.settings import usable_bytes

        complete = self.defaults(installation, model).config | config
        if complete["num_gpu"] != 0 and any(map(usable_bytes, _gpus())):
            return None

        return on_the_host(model, complete)

    def suggest(self, context: AdviceContext) -> Iterable[Suggestion | Kept]:
        """What only Ollama has: keeping models loaded, and its experimental group."""
        from velollm_ollama import advice

        return advice.suggest(context)

    def forms(self, installation: Installation) -> tuple[str, ...]:
        """The server's environment in several forms, a Modelfile, llama.cpp's own file."""
        from velollm_ollama import forms

        return forms.forms(installation)

    def render(
        self, installation: Installation, model: Model, settings: Settings, form: str
    ) -> str:
        """``settings`` in one of :meth:`forms`."""
        from velollm_ollama import forms

        return forms.render(installation, model, settings, form)

    def omitted(
        self, installation: Installation, model: Model, config: Config, form: str
    ) -> tuple[str, ...]:
        """What belongs elsewhere: a parameter of the model, or a variable of the server."""
        del installation, model
        from velollm_ollama import forms

        return forms.omitted(config, form)

    def plan_apply(
        self, installation: Installation, model: Model, settings: Settings, target: str | None
    ) -> tuple[Change, ...]:
        """The files that make ``settings`` the user's own."""
        from velollm_core.hardware.probe import Probe
        from velollm_ollama import apply

        return apply.plan_apply(installation, model, settings, target, probe=Probe())

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        """Start a private server with the same models; the user's own is left alone."""
        if installation.kind == "server":
            return super().launch(installation, model, settings, place)
        from velollm_ollama.launch import launch

        return launch(installation, model, settings, place)

    def attach(self, installation: Installation, model: Model, config: Config) -> Session:
        """A session with the running server, ``model`` loaded with ``config``."""
        if installation.kind != "server":
            return super().attach(installation, model, config)
        from velollm_ollama.session import attach

        return attach(installation, model, config)


@cache
def _gpus() -> tuple[GpuInfo, ...]:
    """Those of this machine, which do not change while VeloLLM runs."""
    from velollm_core.hardware.gpu_hooks import velollm_detect_gpus
    from velollm_core.hardware.gpus import merge_gpus
    from velollm_core.hardware.probe import Probe

    return merge_gpus(velollm_detect_gpus(Probe()))


def _parameters(installation: Installation, model: Model, *, once: bool = False) -> str:
    """The model's own, a line each; ``once``: a running server need not be asked again."""
    from velollm_ollama import server
    from velollm_ollama.store import parameters_of

    with suppress(VeloError):  # what cannot be told is as if it were not there
        if installation.kind == "binary":
            return parameters_of(server.pulled_as(model, installation))
        shown = _shown_once if once else _shown
        return shown(installation.location, server.name_of(model))
    return ""


def _shown(url: str, name: str) -> str:
    from velollm_ollama.api import Api

    return str(Api(url).show(name).get("parameters") or "")


_shown_once = cache(_shown)
"""Many configurations are checked in one run."""


def _users_server(installation: Installation, environ: Mapping[str, str]) -> int | None:
    """The process of the server whose settings are the user's own."""
    from velollm_ollama.server import pid_of, users_pid

    return pid_of(installation) if installation.kind == "server" else users_pid(environ)
