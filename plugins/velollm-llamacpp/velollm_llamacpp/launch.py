"""Starts either engine and waits until it answers."""

from __future__ import annotations

import json
import re
import sys
import time

import psutil
from attrs import evolve

from velollm_core.backends.contract import Installation
from velollm_core.backends.http import HttpClient
from velollm_core.backends.processes import Child, Place
from velollm_core.config import Settings
from velollm_core.errors import FailureKind, LaunchError, ModelError, RequestError
from velollm_core.models.spec import Model
from velollm_llamacpp.arguments import arguments, fields
from velollm_llamacpp.engines import EMBEDDED, Engine, shielded
from velollm_llamacpp.failures import explain, quote
from velollm_llamacpp.flags import Flags
from velollm_llamacpp.readback import SPEAKER, own_lines, read_log
from velollm_llamacpp.session import LlamaSession
from velollm_llamacpp.settings import completed, refuse_open_doors
from velollm_llamacpp.vetting import vet

_ADDRESS = re.compile(
    SPEAKER + r"(?:(?:HTTP )?server is )?"
    r"listening(?: on http://|, hostname: )127\.0\.0\.1(?::|, port: )(\d+)",
    re.MULTILINE,
)
_LAST_LINES = 8
_END_LINES = 200
_POLL_S = 0.01
_HEALTH_TIMEOUT_S = 2.0


def launch(
    installation: Installation, engine: Engine, model: Model, settings: Settings, place: Place
) -> LlamaSession:
    """Start ``engine`` with ``model`` and ``settings`` at a free port of 127.0.0.1.

    Raises:
        LaunchError: it did not start, died, or was not ready before the place's deadline.
        ModelError: the model is no file on this machine.
        UsageError: the engine cannot be given a setting.
    """
    if model.path is None:
        raise ModelError(
            f"{model.reference} is no file on this machine.", "Give the path of a .gguf file."
        )
    vet(settings, engine.flags)
    config = completed(engine, settings.config)
    if installation.kind == "wheel":
        what = "the embedded llama.cpp"
        spec = place.directory / "embedded.json"
        spec.write_text(json.dumps({"model": str(model.path), "fields": fields(config)}), "utf-8")
        argv = [sys.executable, "-P", str(EMBEDDED), str(spec)]
    else:
        what = "llama-server"
        refuse_open_doors(engine.flags, place.environ)
        argv = [
            installation.location,
            *("--model", str(model.path), "--host", "127.0.0.1", "--port", "0"),
            *_telling(engine.flags),
            *arguments(engine.flags, config),
            *settings.extra_args,
        ]
    own = evolve(place, environ=shielded(place.environ, place.directory))
    started = time.monotonic()
    child = own.start(argv, settings.extra_env)
    try:
        url = wait_until_ready(child, own, what)
        load_ms = (time.monotonic() - started) * 1000.0
        log = place.log_path.read_text(encoding="utf-8", errors="replace")
        return LlamaSession(url, child=child, load_ms=load_ms, started=read_log(log), what=what)
    except BaseException:
        child.stop()
        raise


def _telling(flags: Flags) -> list[str]:
    """Arguments that let the server tell about itself, as far as the build has them."""
    switches = ("--metrics", "--slots", "--offline", "--log-prefix", "--log-timestamps")
    words = [name for name in switches if flags.get(name)]
    colors = flags.get("--log-colors")
    if colors is not None and colors.takes_value:
        words += ["--log-colors", "off"]
    return [*words, "--verbosity", "4"] if flags.traces else words


def wait_until_ready(child: Child, place: Place, what: str) -> str:
    """The URL of the server, once it says that it is healthy.

    Raises:
        LaunchError: it died, or the deadline passed.
    """
    url = None
    while place.remaining_s() > 0:
        code = child.exit_code()
        if code is not None:
            failure = explain(what, code, child.log_tail(_END_LINES))
            raise LaunchError(failure.message, failure.cause.hint, failure.cause.kind)
        url = url or _address(child)
        if url is not None and _is_healthy(url, min(_HEALTH_TIMEOUT_S, place.remaining_s())):
            return url
        time.sleep(_POLL_S)
    raise LaunchError(
        f"{what} was not ready in time.{quote(child.log_tail(_LAST_LINES).splitlines())}",
        "A big model on a slow disk needs longer; otherwise the engine hangs.",
        FailureKind.TIMEOUT,
    )


def _address(child: Child) -> str | None:
    try:
        log = child.log_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    told = [int(port) for port in _ADDRESS.findall(own_lines(log))]
    return f"http://127.0.0.1:{port}" if (port := _port(told, child.pid)) else None


def _port(told: list[int], pid: int) -> int | None:
    """The first port that the log tells and that the process, or one of its own, listens at.

    A text in the model's file may tell another. Some builds tell what they were asked for: 0.
    """
    if not told:
        return None
    try:
        process = psutil.Process(pid)
        family = (process, *process.children(recursive=True))
        entries = [entry for member in family for entry in member.net_connections("tcp")]
    except psutil.Error:
        return told[-1]  # the system does not say; the model's texts are printed before
    real = [e.laddr.port for e in entries if e.status == psutil.CONN_LISTEN and e.laddr]
    known = [port for port in told if port in real]
    return next(iter(known or (real if 0 in told else ())), None)


def _is_healthy(url: str, timeout_s: float) -> bool:
    try:
        return bool(HttpClient(url).get("/health", max(0.05, timeout_s)).get("status") == "ok")
    except RequestError:
        return False
