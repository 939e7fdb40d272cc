"""llama.cpp as VeloLLM's backend: the user's own ``llama-server``, or the engine in a wheel."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from velollm_core.backends.contract import Backend, Footprint, Installation, Option, Session
from velollm_core.config import (
    Config,
    Kept,
    Knob,
    Problem,
    Settings,
    Suggestion,
    Value,
    problems,
)
from velollm_core.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from velollm_core.backends.advice import AdviceContext
    from velollm_core.backends.changes import Change
    from velollm_core.backends.processes import Place
    from velollm_core.hardware.spec import GpuInfo
    from velollm_core.models.memory import Part
    from velollm_core.models.spec import Model
    from velollm_llamacpp.engines import Engine

_LOG = logging.getLogger(__name__)

_FRESH_S = 5.0


class LlamaCpp(Backend):
    """Finds, starts and talks to llama.cpp."""

    name = "llamacpp"
    automatic = True
    options = (
        Option(name="server", summary="path of the llama-server to use"),
        Option(name="engine", summary="embedded: use the wheel although there is a llama-server"),
        Option(name="url", summary="attach to the llama-server that runs at this URL"),
        Option(name="api_key", summary="key of the server at url", secret=True),
    )

    def probe(
        self, options: Mapping[str, str], environ: Mapping[str, str]
    ) -> tuple[Installation, ...]:
        """The user's ``llama-server``, then the wheel; with ``url`` that server alone.

        Raises:
            Unavailable: what ``options`` name is not there.
            UsageError: ``options`` contradict each other.
        """
        if "url" in options:
            from velollm_llamacpp.attached import find

            return (find(options["url"], options.get("api_key") or environ.get("LLAMA_API_KEY")),)
        if options.get("engine", "embedded") != "embedded":
            raise UsageError(f"-X engine={options['engine']} is not known.", "It takes: embedded.")
        if "server" in options:
            if "engine" in options:
                raise UsageError("-X server and -X engine=embedded exclude each other.")
            path = shutil.which(options["server"], path=environ.get("PATH"))
            # Not every shell expands the "~" of server=~/x; Path.expanduser raises for "~nobody".
            named = os.path.expanduser(path or options["server"])  # noqa: PTH111
            return (_binary(Path(named).absolute()),)
        found = () if "engine" in options else _on_path(environ)
        return (*found, *_wheel(required="engine" in options))

    def models(self, installation: Installation) -> tuple[Model, ...]:
        """What an attached server has loaded; an engine to be started has nothing of its own."""
        if installation.kind != "server":
            return ()
        from velollm_llamacpp import attached

        return attached.models(installation)

    def knobs(self, installation: Installation, model: Model) -> tuple[Knob, ...]:
        """What this build can be told, and what of it can be read back."""
        del model
        from velollm_llamacpp.arguments import settable
        from velollm_llamacpp.knobs import KNOBS, of_attached

        if installation.kind == "server":
            return tuple(of_attached(knob) for knob in KNOBS)
        engine = _engine(installation)
        return settable(engine.flags, gpus=bool(engine.gpus))

    def defaults(self, installation: Installation, model: Model) -> Settings:
        """What ``llama-server`` does when nothing is set; the wheel is held to the same.

        Of an attached server that is not known.
        """
        del model
        if installation.kind == "server":
            return Settings()
        from velollm_llamacpp import settings

        embedded = installation.kind == "wheel"
        return settings.defaults(_engine(installation), os.environ, embedded=embedded)

    def current(
        self, installation: Installation, model: Model, environ: Mapping[str, str]
    ) -> Settings:
        """The user's own, over the defaults: from ``LLAMA_ARG_*`` and configuration files."""
        del model
        if installation.kind == "server":
            from velollm_llamacpp import attached

            return attached.settings(installation)
        from velollm_llamacpp import settings

        embedded = installation.kind == "wheel"
        return settings.current(_engine(installation), environ, embedded=embedded)

    def check(
        self, installation: Installation, model: Model, config: Config
    ) -> tuple[Problem, ...]:
        """Unknown knobs and values, knobs that this build lacks, and contradictions."""
        from velollm_llamacpp.checks import contradictions, missing

        knobs = self.knobs(installation, model)
        lacking = missing(knobs, config, installation)
        named = {problem.knob for problem in lacking}
        others = [entry for entry in problems(knobs, config) if entry.knob not in named]
        complete: Mapping[str, Value] = config
        if installation.kind != "server":
            from velollm_llamacpp.settings import completed

            complete = completed(_engine(installation), config)
        return (*lacking, *others, *contradictions(config, complete))

    def expected(self, installation: Installation, model: Model, config: Config) -> Config:
        """``config`` as llama.cpp rounds and caps it, without what cannot be read back."""
        if installation.kind == "server":
            return super().expected(installation, model, config)
        from velollm_llamacpp.expected import reported
        from velollm_llamacpp.settings import completed

        knobs = self.knobs(installation, model)
        return reported(knobs, model.spec, config, completed(_engine(installation), config))

    def footprint(
        self, installation: Installation, model: Model, config: Config
    ) -> Footprint | None:
        """Bytes on each device; not told where the engine's GPUs are not those that are found."""
        if installation.kind == "server" or model.spec is None:
            return None
        engine = _engine(installation)
        from velollm_llamacpp.footprint import on_gpus, on_the_host
        from velollm_llamacpp.settings import completed

        complete = completed(engine, config)
        if not engine.gpus:
            return on_the_host(model.spec, complete, engine.cpu_features)
        cards = _cards()
        return on_gpus(model.spec, complete, cards) if len(cards) == len(engine.gpus) else None

    def own_plan(
        self, installation: Installation, model: Model, config: Config
    ) -> Mapping[str, Part] | None:
        """By the ``llama-fit-params`` beside a ``llama-server``."""
        if installation.kind != "binary" or model.path is None:
            return None
        from velollm_llamacpp.fit_params import planned
        from velollm_llamacpp.settings import completed

        engine = _engine(installation)
        complete = completed(engine, config)
        return planned(Path(installation.location), engine, model.path, complete)

    def suggest(self, context: AdviceContext) -> Iterable[Suggestion | Kept]:
        """llama.cpp's own rules; of an attached server the defaults are not known, so none."""
        if context.installation.kind == "server":
            return ()
        from velollm_llamacpp.advice import suggestions

        return suggestions(context)

    def forms(self, installation: Installation) -> tuple[str, ...]:
        """Those of a build whose flags are known: not of a server that is attached to."""
        if installation.kind == "server":
            return ()
        from velollm_llamacpp.forms import FORMS

        return FORMS

    def render(
        self, installation: Installation, model: Model, settings: Settings, form: str
    ) -> str:
        """As this build spells it; for the wheel, as ``llama-server`` does."""
        if installation.kind == "server":
            raise _unknown_build(installation)
        from velollm_llamacpp.forms import render

        program = installation.location if installation.kind == "binary" else "llama-server"
        return render(_engine(installation).flags, program, model, settings, form)

    def omitted(
        self, installation: Installation, model: Model, config: Config, form: str
    ) -> tuple[str, ...]:
        """What has no variable, or is said by saying nothing."""
        del model
        from velollm_llamacpp.forms import omitted

        return omitted(_engine(installation).flags, config, form)

    def plan_apply(
        self, installation: Installation, model: Model, settings: Settings, target: str | None
    ) -> tuple[Change, ...]:
        """Into the user's ``config.ini``, or with ``preset=PATH`` into a file of presets."""
        if installation.kind == "server":
            raise _unknown_build(installation)
        from velollm_llamacpp.apply import plan

        return plan(_engine(installation).flags, model, settings.config, target, os.environ)

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        """Start it at a free port of 127.0.0.1, without any setting that is not in ``settings``."""
        if installation.kind == "server":
            return super().launch(installation, model, settings, place)
        from velollm_llamacpp.launch import launch

        return launch(installation, _engine(installation), model, settings, place)

    def attach(self, installation: Installation, model: Model, config: Config) -> Session:
        """A session with the running server that ``-X url`` named."""
        if installation.kind != "server":
            return super().attach(installation, model, config)
        from velollm_llamacpp.attached import attach

        return attach(installation, model, config)


def _cards() -> tuple[GpuInfo, ...]:
    return _cards_then(int(time.monotonic() / _FRESH_S))


@lru_cache(maxsize=1)
def _cards_then(when: int) -> tuple[GpuInfo, ...]:
    """Kept for the many configurations that one plan looks at: the vendors' tools are slow."""
    del when
    from velollm_core.backends.machine import used_gpus
    from velollm_core.hardware.detect import detect
    from velollm_core.hardware.gpu_hooks import velollm_detect_gpus

    return used_gpus(detect(gpus=velollm_detect_gpus))


def _engine(installation: Installation) -> Engine:
    from velollm_llamacpp.engines import build_of

    return build_of(installation)


def _unknown_build(installation: Installation) -> UsageError:
    return UsageError(
        f"the server at {installation.location} does not tell which flags its build has.",
        "Name the program itself: -X server=PATH",
    )


def _binary(path: Path) -> Installation:
    from velollm_llamacpp.engines import examine_binary

    engine = examine_binary(path)
    return Installation(
        backend=LlamaCpp.name,
        kind="binary",
        location=str(path),
        version=engine.version,
        build=engine.build,
        cpu_features=engine.cpu_features,
    )


def _on_path(environ: Mapping[str, str]) -> tuple[Installation, ...]:
    path = shutil.which("llama-server", path=environ.get("PATH"))
    if path is None:
        return ()
    try:
        return (_binary(Path(path).absolute()),)
    except Unavailable as error:
        _LOG.warning("the llama-server on PATH is passed over: %s", error.message)
        return ()


def _wheel(*, required: bool) -> tuple[Installation, ...]:
    from velollm_llamacpp.engines import examine_wheel, wheel_version

    try:
        if wheel_version() is None:
            raise Unavailable(
                "the embedded engine is not installed.", "Install it: pip install xllamacpp"
            )
        engine = examine_wheel()
    except Unavailable as error:
        if required:
            raise
        _LOG.warning("%s", error.message)
        return ()
    return (
        Installation(
            backend=LlamaCpp.name,
            kind="wheel",
            location="xllamacpp",
            version=engine.version,
            cpu_features=engine.cpu_features,
        ),
    )
