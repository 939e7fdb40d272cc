"""The right backend for ``engine.py``; every wrong one differs from it in one thing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil

from velollm_core.backends.contract import (
    Backend,
    Capability,
    Event,
    Finish,
    Installation,
    MemoryUse,
    Option,
    ServerTimings,
    Session,
)
from velollm_core.backends.http import HttpClient
from velollm_core.config import ENGINE_DEFAULT, Choices, Config, Knob, Range, Role, Settings
from velollm_core.errors import FailureKind, LaunchError, NeedsRestart, RequestError, Unavailable
from velollm_core.models.spec import Model

HERE = Path(__file__).parent
BURST = Knob(
    name="burst",
    role=Role.OTHER,
    domain=Range(1, 4),
    unit="tokens",
    summary="tokens that are sent at once",
    source="engine.py",
)
GREETING = Knob(
    name="greeting",
    role=Role.OTHER,
    domain=Choices((False, True)),
    summary="whether the prompt is begun with a greeting",
    source="tiny_backend.py",
    change="per_request",
    unreadable="it is put into each prompt here, the engine knows nothing of it",
)


class TinySession(Session):
    capabilities = frozenset(
        {
            Capability.SERVER_TIMINGS,
            Capability.TOKEN_COUNTS,
            Capability.TOKENIZE,
            Capability.COUNTERS,
            Capability.MEMORY,
        }
    )

    def __init__(self, url, child, load_ms, config):
        self.url = url
        self.child = child
        self.pids = (child.pid,)
        self.load_ms = load_ms
        self.asked = config
        self.client = HttpClient(url)
        self.greets = bool(config.get("greeting"))

    def body(self, request):
        prompt = request.prompt
        if isinstance(prompt, tuple):
            prompt = " ".join(part.content for part in prompt)
        greets = request.config.get("greeting", self.greets)
        return {"prompt": f"Hello! {prompt}" if greets else prompt, "most": request.max_tokens}

    def generate(self, request):
        lines = self.client.stream("/generate", self.body(request), request.timeout_s)
        stopped = False
        for at_ms, line in lines:
            data = self.parsed(line)
            yield from self.items(at_ms, data)
            stopped = stopped or "stop" in data
        if not stopped:
            raise RequestError(f"{self.url} ended an answer before its end.")

    def parsed(self, line):
        try:
            return json.loads(line.removeprefix(b"data: "))
        except ValueError as error:
            raise RequestError(f"{self.url} stopped in the middle of a line.") from error

    def items(self, at_ms, data):
        yield Event(at_ms=at_ms, text=data["text"], tokens=data["tokens"])
        if "stop" in data:
            yield self.finish(at_ms, data)

    def finish(self, at_ms, data):
        return Finish(
            at_ms=at_ms,
            reason=data["stop"],
            prompt_tokens=data["prompt_tokens"],
            output_tokens=data["output_tokens"],
            timings=ServerTimings(prompt_ms=data["prompt_ms"], predicted_ms=data["predicted_ms"]),
        )

    def effective(self):
        return Config(self.client.get("/props"))

    def reconfigure(self, config):
        if set(config) - {"greeting"}:
            raise NeedsRestart(f"{', '.join(config)} cannot be changed in a running engine.")
        self.greets = bool(config.get("greeting", self.greets))

    def tokenize(self, text):
        return self.client.post("/tokenize", {"text": text})

    def counters(self):
        return self.client.get("/counters")

    def memory(self):
        try:
            return MemoryUse(rss_bytes=psutil.Process(self.child.pid).memory_info().rss)
        except psutil.Error:
            return None

    def log_tail(self):
        return self.child.log_tail()

    def close(self):
        self.client.abort()
        self.child.stop()


class TinyBackend(Backend):
    name = "tiny"
    options = (Option(name="engine", summary="path of the engine's script"),)
    session = TinySession

    def probe(self, options, environ):
        path = Path(options.get("engine", HERE / "engine.py"))
        if not path.is_file():
            raise Unavailable(f"there is no engine at {path}.")
        return (Installation(backend=self.name, kind="binary", location=str(path), version="1"),)

    def models(self, installation):
        return (Model(reference="tiny", path=HERE / "model.tiny"),)

    def knobs(self, installation, model):
        return (BURST, GREETING)

    def defaults(self, installation, model):
        config = Config({"burst": 1, "greeting": False})
        return Settings(config=config, origins=dict.fromkeys(config, ENGINE_DEFAULT))

    def current(self, installation, model, environ):
        return self.defaults(installation, model)

    def launch(self, installation, model, settings, place):
        started = time.monotonic()
        child = self.start(place, self.command(installation, model, settings.config))
        try:
            url = self.address(child, place)
        except BaseException:
            child.stop()
            raise
        load_ms = (time.monotonic() - started) * 1000
        return self.session(url, child, load_ms, settings.config)

    def start(self, place, argv):
        return place.start(argv)

    def command(self, installation, model, config):
        burst = ["--burst", str(config.get("burst", 1))]
        return [sys.executable, installation.location, str(model.path), *burst]

    def address(self, child, place):
        while place.remaining_s() > 0:
            said = child.log_tail()
            if "listening on " in said:
                return said.partition("listening on ")[2].split()[0]
            if child.exit_code() is not None:
                raise LaunchError(f"the engine ended at once: {said}", "", FailureKind.REFUSED)
            time.sleep(0.005)
        raise LaunchError("the engine was not ready in time.", "", FailureKind.TIMEOUT)


class AttachedSession(TinySession):
    """A session with an engine that somebody else has started."""

    capabilities = TinySession.capabilities - {Capability.MEMORY}

    def __init__(self, url):
        self.url = url
        self.client = HttpClient(url)
        self.greets = False

    def memory(self):
        return None

    def log_tail(self):
        return ""

    def close(self):
        self.client.abort()


class AttachedTiny(TinyBackend):
    options = (Option(name="url", summary="where the engine runs"),)
    session = AttachedSession

    def probe(self, options, environ):
        url = options.get("url", "")
        try:
            HttpClient(url).get("/health", 2.0)
        except RequestError as error:
            raise Unavailable(error.message, error.hint) from error
        return (Installation(backend=self.name, kind="server", location=url),)

    def models(self, installation):
        return (Model(reference="tiny", served_name="tiny"),)

    def defaults(self, installation, model):
        return Settings()

    def current(self, installation, model, environ):
        config = Config(HttpClient(installation.location).get("/props"))
        return Settings(config=config, origins=dict.fromkeys(config, "the server"))

    def launch(self, installation, model, settings, place):
        return Backend.launch(self, installation, model, settings, place)

    def attach(self, installation, model, config):
        session = self.session(installation.location)
        session.reconfigure(config)
        return session
