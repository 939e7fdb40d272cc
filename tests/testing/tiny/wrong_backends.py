"""Backends that authors really write: each is :class:`TinyBackend` with one fault."""

from __future__ import annotations

import http.client
import json
import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from attrs import evolve
from tiny_backend import AttachedSession, AttachedTiny, TinyBackend, TinySession

from velollm_core.backends.contract import Event, Finish
from velollm_core.config import Config
from velollm_core.errors import RequestError


def with_session(kind):
    """A backend whose sessions are of that kind."""
    return type(kind.__name__, (TinyBackend,), {"session": kind})()


def connection_of(session, request, timeout_s=None):
    """A request that was sent with the standard library's client, as adapters do."""
    parts = urlsplit(session.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    connection.request(
        "POST", "/generate", json.dumps(session.body(request)), {"Content-Type": "text/json"}
    )
    return connection


class LeavesAChild(TinyBackend):
    """Follows the engine's log with a program of its own, and forgets it."""

    def start(self, place, argv):
        self.follower = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
        )
        return super().start(place, argv)


class StartsAroundThePlace(TinyBackend):
    """Starts the engine itself: nothing ends it when VeloLLM is killed."""

    def start(self, place, argv):
        return OwnChild(place, argv)


class OwnChild:
    def __init__(self, place, argv):
        self.log_path = place.log_path
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=dict(place.environ))
        self.pid = self.process.pid

    def exit_code(self):
        return self.process.poll()

    def log_tail(self):
        return self.log_path.read_text()

    def stop(self):
        self.process.kill()
        self.process.wait()


class IgnoresAKnob(TinyBackend):
    """Has a knob in its table and no flag for it on the command line."""

    def command(self, installation, model, config):
        return super().command(installation, model, {})


class RepeatsWhatWasAsked(TinySession):
    """Tells the settings that it was given, and has not looked at the engine."""

    def effective(self):
        return Config({"burst": self.asked.get("burst", 1)})


class CountsWords(TinySession):
    """Takes the words of the answer for its tokens."""

    def generate(self, request):
        text = ""
        for item in super().generate(request):
            if isinstance(item, Event):
                text += item.text
                yield evolve(item, tokens=None)
            else:
                yield evolve(item, output_tokens=len(text.split()))


class LosesTheLastEvent(TinySession):
    """Takes the event with the end for the end alone."""

    def items(self, at_ms, data):
        if "stop" in data:
            yield self.finish(at_ms, data)
        else:
            yield Event(at_ms=at_ms, text=data["text"], tokens=data["tokens"])


class FinishesTwice(TinySession):
    """Sends the end when the server says so, and once more when the stream is over."""

    def generate(self, request):
        end = None
        for item in super().generate(request):
            end = item
            yield item
        yield end


class WrapsNoError(TinySession):
    """Lets the errors of its HTTP client through."""

    def generate(self, request):
        sent = time.perf_counter()
        connection = connection_of(self, request, request.timeout_s)
        for line in connection.getresponse():
            if line.strip():
                at_ms = (time.perf_counter() - sent) * 1000
                yield from self.items(at_ms, json.loads(line.removeprefix(b"data: ")))
        connection.close()


class TimesFromTheFirstByte(TinySession):
    """Starts its clock when the answer begins: the time to first token is nearly nothing."""

    def generate(self, request):
        origin = None
        for item in super().generate(request):
            origin = item.at_ms if origin is None else origin
            yield evolve(item, at_ms=item.at_ms - origin)


class CollectsFirst(TinySession):
    """Reads the whole answer and hands it out then."""

    def generate(self, request):
        yield from list(super().generate(request))


class SharesItsState(TinySession):
    """Keeps the request under way in the session, where another thread finds it."""

    def generate(self, request):
        self.request = request
        time.sleep(0.01)
        yield from super().generate(self.request)


class ReadsOn(TinySession):
    """Reads in a thread of its own, which does not notice that nobody listens any more."""

    def generate(self, request):
        arrived = queue.Queue()

        def read():
            try:
                for item in super(ReadsOn, self).generate(request):
                    arrived.put(item)
            except RequestError as error:
                arrived.put(error)

        threading.Thread(target=read, daemon=True).start()
        item = None
        while not isinstance(item, Finish):
            item = arrived.get()
            if isinstance(item, RequestError):
                raise item
            yield item


class BlocksOnClose(TinySession):
    """Answers and closes under one lock: the end waits for the answer under way."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.lock = threading.Lock()

    def generate(self, request):
        with self.lock:
            yield from super().generate(request)

    def close(self):
        with self.lock:
            super().close()


class TakesAnyKnob(TinySession):
    """Notes down whatever it is told, and tells nobody that the engine does not care."""

    def reconfigure(self, config):
        self.greets = bool(config.get("greeting", self.greets))


class ProbeHangs(TinyBackend):
    """Asks the engine itself, and waits as long as that takes."""

    def probe(self, options, environ):
        program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
        program.wait()
        return super().probe(options, environ)


class ProbeWrites(TinyBackend):
    """Remembers what it found in the user's home."""

    def probe(self, options, environ):
        found = super().probe(options, environ)
        Path(environ["HOME"], ".tiny-cache").write_text(found[0].location)
        os.environ["TINY_ENGINE"] = found[0].location
        return found


class ReadsUndeclaredOptions(TinyBackend):
    """Has an option that no user can give: VeloLLM refuses keys that are not declared."""

    def probe(self, options, environ):
        if "fast" in options:
            return ()
        return super().probe(options, environ)


class PassesOverWhatIsNamed(TinyBackend):
    """Takes its own engine where the one that the user named is not there."""

    def probe(self, options, environ):
        known = {k: v for k, v in options.items() if Path(v).is_file()}
        return super().probe(known, environ)


class EndsWhatItAttachedTo(AttachedSession):
    """Ends a server that belongs to somebody else."""

    def close(self):
        with suppress(RequestError):
            self.client.get("/quit")
        super().close()


WRONG = {
    "leaves-a-child": LeavesAChild(),
    "starts-around-the-place": StartsAroundThePlace(),
    "ignores-a-knob": IgnoresAKnob(),
    "repeats-what-was-asked": with_session(RepeatsWhatWasAsked),
    "counts-words": with_session(CountsWords),
    "loses-the-last-event": with_session(LosesTheLastEvent),
    "finishes-twice": with_session(FinishesTwice),
    "wraps-no-error": with_session(WrapsNoError),
    "times-from-the-first-byte": with_session(TimesFromTheFirstByte),
    "collects-first": with_session(CollectsFirst),
    "shares-its-state": with_session(SharesItsState),
    "reads-on": with_session(ReadsOn),
    "blocks-on-close": with_session(BlocksOnClose),
    "takes-any-knob": with_session(TakesAnyKnob),
    "ends-what-it-attached-to": type("Ends", (AttachedTiny,), {"session": EndsWhatItAttachedTo})(),
    "probe-hangs": ProbeHangs(),
    "probe-writes": ProbeWrites(),
    "reads-undeclared-options": ReadsUndeclaredOptions(),
    "passes-over-what-is-named": PassesOverWhatIsNamed(),
}
