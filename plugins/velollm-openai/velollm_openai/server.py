"""The server at a URL: what it is, what it serves, and whose processes it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psutil

from velollm_core.backends.contract import Installation
from velollm_core.backends.http import HttpClient
from velollm_core.backends.local import is_local, listeners
from velollm_core.errors import RequestError, Unavailable, UsageError
from velollm_core.models.spec import Model

CHAT = "chat"
ENDPOINTS = (CHAT, "completions")
_KEY_VARIABLE = "OPENAI_API_KEY"
_KEY_HINT = f"Set {_KEY_VARIABLE} to the server's key, or name its variable: -X api_key_env=NAME"
_PROBE_TIMEOUT_S = 5.0
_SURPLUS = frozenset("@?# ")
_API_PATH = re.compile(r"/v1(?:/(?:chat/)?completions|/models)?$")
_VERSIONS = {
    "llamacpp": ("/props", "build_info"),
    "sglang": ("/get_server_info", "version"),
    "vllm": ("/version", "version"),
}
"""Servers that name themselves in ``owned_by`` of their models, and where they tell their
version."""
_RELAYS = frozenset(
    {
        "caddy",
        "com.docker.backend",
        "docker-proxy",
        "envoy",
        "haproxy",
        "kubectl",
        "nginx",
        "rootlessport",
        "socat",
        "ssh",
        "sshd",
        "traefik",
        "wslrelay",
    }
)
"""Programs that listen for a server which runs elsewhere."""


def find(options: Mapping[str, str], environ: Mapping[str, str]) -> Installation:
    """The server that ``options`` name.

    Raises:
        Unavailable: nothing answers there, or something that lists no models.
        UsageError: an option has a value that it does not take.
    """
    endpoint = options.get("endpoint", CHAT)
    if endpoint not in ENDPOINTS:
        raise UsageError(
            f"-X endpoint={endpoint} is not known.", f"It takes: {', '.join(ENDPOINTS)}."
        )
    url = base_url(options["url"])
    key, hint = _key(url, options, environ)
    client = HttpClient(url, key, key_hint=hint)
    kind = _kind(_listed(client))
    return Installation(
        backend="openai",
        kind="server",
        location=url,
        version=" ".join(filter(None, (kind, _version(client, kind)))) or None,
        options={"endpoint": endpoint} | ({} if key is None else {"api_key": key}),
    )


def base_url(url: str) -> str:
    """``url`` without the path of the API, which users may name or leave out.

    Raises:
        UsageError: it is no URL of a server; the message says how to write it.
    """
    text = url.strip()
    if not text.isprintable() or not _SURPLUS.isdisjoint(text):
        raise UsageError(
            "-X url holds more than an address: a user, a key or a query.",
            "Write http://HOST:PORT; a key belongs into a variable: -X api_key_env=NAME",
        )
    if "://" not in text:
        raise UsageError(f"-X url={text} has no scheme.", f"Write it: -X url=http://{text}")
    base = _API_PATH.sub("", text.rstrip("/"))
    HttpClient(base)  # refuses what is no address
    return base


def _key(
    url: str, options: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[str | None, str]:
    """The key to send, and what to tell a user whose server wants another one.

    ``OPENAI_API_KEY`` may be that of a service elsewhere, so unless the user names the variable it
    goes to this machine or over TLS, and never in the clear to another machine.
    """
    named = options.get("api_key_env")
    if named is not None:
        if not environ.get(named):
            raise UsageError(
                "the variable that -X api_key_env names is not set, or is empty.",
                "Give the name of a variable that holds the server's key, not the key itself.",
            )
        return environ[named].strip(), f"The key in {named} is not one of this server's."
    key = environ.get(_KEY_VARIABLE, "").strip()
    if not key:
        return None, _KEY_HINT
    if url.lower().startswith("https://") or is_local(url):
        return key, f"The key in {_KEY_VARIABLE} is not one of this server's."
    hint = f"{_KEY_VARIABLE} was not sent, because the way there is not encrypted; "
    return None, f"{hint}if it may be: -X api_key_env={_KEY_VARIABLE}"


def endpoint_of(installation: Installation) -> str:
    """Where messages are sent: ``chat`` or ``completions``."""
    return installation.options.get("endpoint", CHAT)


def kind_of(installation: Installation) -> str | None:
    """``llamacpp``, ``sglang`` or ``vllm``, where the server says that it is one."""
    name = (installation.version or "").partition(" ")[0]
    return name if name in _VERSIONS else None


def client_of(installation: Installation) -> HttpClient:
    """An HTTP client for the server, with its key."""
    key = installation.options.get("api_key")
    return HttpClient(installation.location, key, key_hint=_KEY_HINT)


def models(installation: Installation) -> tuple[Model, ...]:
    """What the server lists.

    Raises:
        Unavailable: it lists none.
    """
    names = dict.fromkeys(entry["id"] for entry in _listed(client_of(installation)))
    return tuple(Model(reference=name, served_name=name) for name in names)


def _listed(client: HttpClient) -> list[dict[str, Any]]:
    try:
        answer = client.get("/v1/models", _PROBE_TIMEOUT_S)
    except RequestError as error:
        hint = error.hint
        if error.status == 404:
            hint = "Name the URL in front of /v1, where an OpenAI-compatible server answers."
        raise Unavailable(error.message, hint) from None
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        raise Unavailable(
            f"{client.url} is no OpenAI-compatible server: its /v1/models is another's.",
            "Name the URL of an inference server: -X url=http://127.0.0.1:8000",
        )
    named = [entry for entry in data if isinstance(entry, dict) and entry.get("id")]
    entries = [entry for entry in named if isinstance(entry["id"], str)]
    if not entries:
        raise Unavailable(f"{client.url} has no model.", "Load or install one there first.")
    return entries


def _kind(entries: list[dict[str, Any]]) -> str | None:
    owners = [entry.get("owned_by") for entry in entries]
    return next((name for name in _VERSIONS if name in owners), None)


def _version(client: HttpClient, kind: str | None) -> str | None:
    """What the server says; those that are not recognised are asked as LocalAI and vLLM are."""
    path, key = _VERSIONS.get(kind or "", ("/version", "version"))
    with suppress(RequestError):
        told = client.get(path, _PROBE_TIMEOUT_S)
        version = told.get(key) if isinstance(told, dict) else None
        return version[:80] if isinstance(version, str) else None
    return None


def processes(url: str) -> tuple[int, ...]:
    """The server's processes with their children, where they are of this machine and may be
    seen.
    """
    pids: dict[int, None] = {}
    for process in listeners(url):
        with suppress(psutil.Error):
            if process.name().lower().removesuffix(".exe") in _RELAYS:
                continue
            family = (process, *process.children(recursive=True))
            pids |= dict.fromkeys(member.pid for member in family)
    return tuple(pids)
