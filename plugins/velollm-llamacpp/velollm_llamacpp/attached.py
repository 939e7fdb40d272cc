"""A server that was running already: what it is, and what is known of its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from attrs import evolve

from velollm_core.backends.contract import Installation
from velollm_core.backends.http import HttpClient
from velollm_core.backends.local import is_local, listeners
from velollm_core.config import Config, Settings, Value
from velollm_core.errors import RequestError, Unavailable, VeloError
from velollm_core.models.references import resolve
from velollm_core.models.spec import Model
from velollm_llamacpp import sources
from velollm_llamacpp.arguments import entry_of, read, words
from velollm_llamacpp.readback import read_endpoints
from velollm_llamacpp.record import recorded_flags
from velollm_llamacpp.session import LlamaSession
from velollm_llamacpp.vetting import is_harmless

_PROBE_TIMEOUT_S = 5.0


def client_of(installation: Installation) -> HttpClient:
    """An HTTP client for the server, with its key."""
    return HttpClient(installation.location, installation.options.get("api_key"))


def find(url: str, api_key: str | None) -> Installation:
    """The server at ``url``.

    Raises:
        Unavailable: nothing answers there, or something that is no server of llama.cpp.
    """
    props = _props(HttpClient(url, api_key))
    build = props.get("build_info")
    return Installation(
        backend="llamacpp",
        kind="server",
        location=url.rstrip("/"),
        build=build if isinstance(build, str) else None,
        options={} if api_key is None else {"api_key": api_key},
    )


def _props(client: HttpClient) -> dict[str, Any]:
    try:
        props = client.get("/props", _PROBE_TIMEOUT_S)
    except RequestError as error:
        raise Unavailable(error.message, error.hint) from error
    if not isinstance(props, dict) or "default_generation_settings" not in props:
        raise Unavailable(
            f"{client.url} is no server of llama.cpp: its /props is another's.",
            "Name the URL of a llama-server: -X url=http://127.0.0.1:8080",
        )
    return props


def models(installation: Installation) -> tuple[Model, ...]:
    """What the server has loaded. Where the file is on this machine, its header is read."""
    client = client_of(installation)
    try:
        listed = client.get("/v1/models", _PROBE_TIMEOUT_S)["data"]
        names = [str(entry["id"]) for entry in listed]
    except (RequestError, KeyError, TypeError) as error:
        raise Unavailable(f"{client.url} does not list its models: {error}.") from error
    path = _props(client).get("model_path")
    return tuple(_model(name, path if len(names) == 1 else None, client.url) for name in names)


def _model(name: str, path: object, url: str) -> Model:
    if isinstance(path, str) and is_local(url) and Path(path).is_absolute():
        with suppress(VeloError):  # a file that only the server may read, or one of another machine
            known = resolve(path, (), progress=lambda *_: None, environ={})
            return evolve(known, reference=name, served_name=name)
    return Model(reference=name, served_name=name)


def settings(installation: Installation) -> Settings:
    """What is known: from the process's arguments and environment where it is one of this machine,
    and from the endpoints. What nobody tells is absent; only harmless arguments are kept.
    """
    config: dict[str, Value] = {}
    origins: dict[str, str] = {}
    extra_args: list[str] = []
    for found in _of_process(installation.location):
        if found.flag is None:
            continue
        entry = entry_of(found.flag)
        value = read(entry, found.text) if entry else None
        if entry is not None and value is not None:
            config[entry.knob.name] = value
            origins[entry.knob.name] = found.origin
        elif is_harmless(found.flag):
            extra_args += words(found.flag, found.text)
    client = client_of(installation)
    told = read_endpoints(_props(client), _slots(client))
    config |= told
    origins |= dict.fromkeys(told, "the server's /props and /slots")
    return Settings(config=Config(config), origins=origins, extra_args=tuple(extra_args))


def _slots(client: HttpClient) -> object:
    try:
        return client.get("/slots", _PROBE_TIMEOUT_S)
    except RequestError:
        return None


def _of_process(url: str) -> Iterator[sources.Found]:
    for process in _processes(url):
        with suppress(psutil.Error, OSError):
            argv, environ = process.cmdline()[1:], process.environ()
            yield from sources.environment(recorded_flags(), environ)
            yield from sources.arguments(recorded_flags(), argv, "of the running server")


def _processes(url: str) -> tuple[psutil.Process, ...]:
    """The llama.cpp that listens at ``url``, where it is a process of this machine and may be seen.

    Another program there is a proxy or a tunnel, whose arguments and memory mean nothing.
    """
    found = []
    for process in listeners(url):
        with suppress(psutil.Error):
            if "llama" in process.name().lower():
                found.append(process)
    return tuple(found)


def attach(installation: Installation, model: Model, config: Mapping[str, Value]) -> LlamaSession:
    """A session with the server, with ``config`` in force.

    Raises:
        NeedsRestart: ``config`` wants what a running server cannot change.
        Unavailable: nothing usable answers there.
    """
    session = LlamaSession(
        installation.location,
        api_key=installation.options.get("api_key"),
        pids=tuple(process.pid for process in _processes(installation.location)),
        served_name=model.served_name,
        known=settings(installation).config,
    )
    session.reconfigure(Config(config))
    return session
