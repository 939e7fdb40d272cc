"""An engine that repeats what it is told: the smallest backend that VeloLLM can benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from velollm_core import hookimpl
from velollm_core.backends.contract import (
    Backend,
    Capability,
    Event,
    Finish,
    Installation,
    Request,
    ServerTimings,
    Session,
)
from velollm_core.backends.processes import Place
from velollm_core.config import Choices, Config, Knob, Range, Role, Settings
from velollm_core.errors import FailureKind, RequestError
from velollm_core.models.spec import Model

DELAY = Knob(
    name="delay_ms",
    role=Role.OTHER,
    domain=Range(1, 100),
    unit="ms",
    summary="pause before each breath",
    source="this file",
)
BREATH = Knob(
    name="breath",
    role=Role.OTHER,
    domain=Choices((1, 2, 4)),
    summary="words between two pauses",
    source="this file",
    change="per_request",
)
VOWELS = Knob(
    name="vowels",
    role=Role.OTHER,
    domain=Choices((True, False)),
    summary="whether all vowels are said; without them a pause is half as long",
    source="this file",
    numerics="lossy",
    change="reload",
)
USUAL = Config({"delay_ms": 1, "breath": 1, "vowels": True})


class EchoSession(Session):
    """A running echo. Its tokens are words: it makes them itself, so it may say so."""

    url = "echo:"
    load_ms = 0.0
    capabilities = frozenset({Capability.SERVER_TIMINGS, Capability.TOKEN_COUNTS})

    def __init__(self, config: Config) -> None:
        self._config = config
        self._closed = False

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        """Repeat the prompt, a word an event."""
        sent = time.perf_counter()
        config = self._config | request.config
        pause_s = float(config["delay_ms"]) / (1000 if config["vowels"] else 2000)
        words = [word if config["vowels"] else _short(word) for word in _words(request)]
        first_ms = last_ms = 0.0
        for index, word in enumerate(words[: request.max_tokens]):
            if index % int(config["breath"]) == 0:
                time.sleep(pause_s)
            if self._closed:
                raise RequestError("the echo was closed.", "", FailureKind.INTERRUPTED)
            last_ms = (time.perf_counter() - sent) * 1000
            first_ms = first_ms or last_ms
            yield Event(at_ms=last_ms, text=word if index == 0 else f" {word}", tokens=1)
        count = min(len(words), request.max_tokens)
        yield Finish(
            at_ms=(time.perf_counter() - sent) * 1000,
            reason="length" if count == request.max_tokens else "stop",
            prompt_tokens=len(words),
            cached_tokens=0,
            output_tokens=count,
            timings=ServerTimings(prompt_ms=first_ms, predicted_ms=last_ms - first_ms),
        )

    def effective(self) -> Config:
        """What the engine really uses."""
        return self._config

    def reconfigure(self, config: Config) -> None:
        """All but the pause, which holds from the start."""
        live = {BREATH.name, VOWELS.name}
        super().reconfigure(Config({k: v for k, v in config.items() if k not in live}))
        self._config |= config

    def close(self) -> None:
        """No process was started, so none has to end; answers under way do."""
        self._closed = True


def _words(request: Request) -> list[str]:
    if isinstance(request.prompt, str):
        return request.prompt.split()
    parts = [part if isinstance(part, int) else part.content for part in request.prompt]
    return " ".join(map(str, parts)).split()


def _short(word: str) -> str:
    return word[0] + "".join(letter for letter in word[1:] if letter not in "aeiou")


class EchoBackend(Backend):
    """Finds the echo, which is always there, and starts it."""

    name = "echo"

    def probe(
        self, options: Mapping[str, str], environ: Mapping[str, str]
    ) -> tuple[Installation, ...]:
        """One installation: this module."""
        del options, environ
        return (Installation(backend=self.name, kind="wheel", location=__name__, version="0.1.0"),)

    def models(self, installation: Installation) -> tuple[Model, ...]:
        """One model, which is none."""
        del installation
        return (Model(reference="echo", served_name="echo"),)

    def knobs(self, installation: Installation, model: Model) -> tuple[Knob, ...]:
        """Three knobs."""
        del installation, model
        return (DELAY, BREATH, VOWELS)

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        """Ready at once."""
        del installation, model, place
        return EchoSession(USUAL | settings.config)


@hookimpl
def velollm_register_backends(register: Callable[[Backend], None]) -> None:
    """Offer the echo."""
    register(EchoBackend())
