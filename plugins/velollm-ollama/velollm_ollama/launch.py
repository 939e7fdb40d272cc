"""Starts a private Ollama beside the user's own, and loads one model in it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
from attrs import evolve

from velollm_core.backends.contract import Installation
from velollm_core.backends.processes import Child, Place
from velollm_core.config import ENGINE_DEFAULT, Config, Settings
from velollm_core.errors import FailureKind, LaunchError, RequestError, VeloError
from velollm_core.models.spec import Model
from velollm_ollama.address import base_url
from velollm_ollama.api import Api
from velollm_ollama.knobs import llama_config, options, variables
from velollm_ollama.places import DEVICES
from velollm_ollama.processes import family
from velollm_ollama.readback import read_log
from velollm_ollama.server import pulled_as
from velollm_ollama.session import OllamaSession, ended, last_words, load_fields

_TRIES = 3
_POLL_S = 0.02
_ANSWER_S = 2.0
_STRAYS = ("OLLAMA_", "LLAMA_")
_TAKEN = re.compile(r"address already in use|Only one usage of each socket address")


def launch(
    installation: Installation, model: Model, settings: Settings, place: Place
) -> OllamaSession:
    """Start ``ollama serve`` at a free port of 127.0.0.1 and load ``model`` in it.

    It uses the models of the user's own server, and nothing else of it: it deletes none, and gets
    no setting that is not in ``settings``.

    Raises:
        LaunchError: it did not start, died, or was not ready before the place's deadline; or it
            could not load the model.
        ModelError: the model is none that Ollama has pulled on this machine.
    """
    entry = pulled_as(model, installation)
    asked = {
        name: value
        for name, value in settings.config.items()
        if settings.origins.get(name) != ENGINE_DEFAULT
    }
    config = Config(asked)
    own = evolve(place, environ=_shielded(place.environ, place.directory))
    _write_llama_config(config, place.directory)
    fixed = {
        "OLLAMA_MODELS": str(entry.folder),
        "OLLAMA_NOPRUNE": "1",  # or it would delete what it thinks is of no use
        "OLLAMA_NO_CLOUD": "1",
    }
    devices = {name: text for name, text in settings.extra_env.items() if name in DEVICES}
    started = time.monotonic()
    child, url = _serving(installation, own, {**devices, **variables(config), **fixed})
    try:
        name = str(entry.name)  # a name may be typed in other letters
        _load(url, name, config, place, child)
        return OllamaSession(
            installation,
            name,
            url=url,
            pid=child.pid,
            child=child,
            config=config,
            started=read_log(place.log_path.read_text(encoding="utf-8", errors="replace")),
            load_ms=(time.monotonic() - started) * 1000.0,
        )
    except BaseException:
        child.stop()
        raise


def _shielded(environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    """``environ`` without what the user has set for Ollama and llama.cpp, whose configuration file
    is looked for in ``directory``.
    """
    kept = {name: text for name, text in environ.items() if not name.startswith(_STRAYS)}
    return {**kept, "XDG_CONFIG_HOME": str(directory), "APPDATA": str(directory)}


def _write_llama_config(config: Config, directory: Path) -> None:
    text = llama_config(config)
    if text is not None:
        folder = directory / "llama.cpp"
        folder.mkdir(exist_ok=True)
        (folder / "config.ini").write_text(text, encoding="utf-8")


def _serving(
    installation: Installation, place: Place, environ: Mapping[str, str]
) -> tuple[Child, str]:
    """A server that answers, and its URL. Ollama cannot tell a port that it chose itself, so one is
    reserved; another program may take it in that moment, and then it is done again.
    """
    for _ in range(_TRIES):
        port = _free_port()
        address = f"127.0.0.1:{port}"
        before = place.log_path.stat().st_size if place.log_path.exists() else 0
        child = place.start([installation.location, "serve"], {**environ, "OLLAMA_HOST": address})
        try:
            code = _wait(child, f"http://{address}", port, place)
        except BaseException:
            child.stop()
            raise
        if code is None:
            return child, f"http://{address}"
        child.stop()
        with place.log_path.open("rb") as log:
            log.seek(before)
            said = log.read().decode("utf-8", "replace")
        if not _TAKEN.search(said):
            raise LaunchError(ended(code, child), "Does `ollama serve` start in a terminal?")
    raise LaunchError(
        f"the private Ollama found no free port in {_TRIES} tries.",
        "Another program takes every port that is free: end it.",
        FailureKind.REFUSED,
    )


def _wait(child: Child, url: str, port: int, place: Place) -> int | None:
    """``None`` once the server answers, or the code with which it ended.

    Raises:
        LaunchError: the deadline passed.
    """
    api = Api(url)
    while place.remaining_s() > 0:
        code = child.exit_code()
        if code is not None:
            return code
        with suppress(RequestError):
            if _listens(child.pid, port) and api.version(min(_ANSWER_S, place.remaining_s())):
                return None
        time.sleep(_POLL_S)
    raise LaunchError(
        f"the private Ollama was not ready in time.{last_words(child)}",
        "Give it longer: --launch-timeout; otherwise it hangs.",
        FailureKind.TIMEOUT,
    )


def _load(url: str, name: str, config: Config, place: Place, child: Child) -> None:
    try:
        left_s = max(_POLL_S, place.remaining_s())
        Api(url).load(name, options(config), load_fields(config), left_s)
    except RequestError as error:
        code = child.exit_code()
        message = error.message if code is None else ended(code, child)
        hint = error.hint
        if error.kind is FailureKind.OUT_OF_MEMORY:
            hint = f"{hint} {_held_by_the_user(place.environ)}".strip()
        raise LaunchError(message, hint, error.kind) from error


def _held_by_the_user(environ: Mapping[str, str]) -> str:
    """What the user's own server holds in memory, and how to free it; empty if nothing."""
    with suppress(VeloError):
        held = Api(base_url(environ.get("OLLAMA_HOST", ""), "OLLAMA_HOST")).ps()
        if held:
            total = sum(entry.size_bytes for entry in held) / 2**30
            return f"Your own Ollama holds {total:.1f} GiB meanwhile: ollama stop {held[0].name}"
    return ""


def _listens(pid: int, port: int) -> bool:
    """Whether it is this process that answers at the port, and not another that took it."""
    try:
        entries = [
            entry
            for member in family(pid)
            for entry in psutil.Process(member).net_connections("tcp")
        ]
    except psutil.AccessDenied:  # of one that has just ended, or where the system tells nobody
        with suppress(psutil.Error):
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        return False
    except psutil.Error:
        return False
    return any(e.status == psutil.CONN_LISTEN and e.laddr and e.laddr.port == port for e in entries)


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        return port
