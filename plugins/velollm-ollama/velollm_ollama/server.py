"""Finds Ollama: the server that runs, and the program; and what each of them has."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attrs import evolve

from velollm_core.backends import quoting
from velollm_core.backends.contract import Installation
from velollm_core.backends.local import is_local
from velollm_core.errors import ModelError, RequestError, Unavailable, UsageError, VeloError
from velollm_core.hardware.probe import Probe, execute
from velollm_core.models.references import resolve
from velollm_core.models.spec import Model
from velollm_ollama.address import PORT, base_url
from velollm_ollama.api import Api, Listed
from velollm_ollama.places import models_folder
from velollm_ollama.processes import server_at
from velollm_ollama.store import Name, Pulled, find, folders, have, pulled

_LOG = logging.getLogger(__name__)
_PROBE_S = 3.0
_NOWHERE = "127.0.0.1:9"
"""Where no Ollama is: its ``--version`` asks the server first."""
_USUAL = f"http://127.0.0.1:{PORT}"
_VERSION = re.compile(r"version is (\d\S*)")
_BLOB = re.compile(r"^FROM\s+\"?(.*sha256-[0-9a-f]{64})\"?\s*$", re.MULTILINE)
_START = "Start it: ollama serve. Where it runs elsewhere, say so: -X host=HOST:PORT"


def running(options: Mapping[str, str], environ: Mapping[str, str]) -> Installation | None:
    """The server that ``-X host`` names, else ``OLLAMA_HOST``; ``None`` where none answers.

    Raises:
        Unavailable: the user asked for it, and it is not there.
        UsageError: ``-X host`` is no address.
    """
    asked = "host" in options or options.get("mode") == "attach"
    origin = "-X host" if "host" in options else "OLLAMA_HOST"
    try:
        url = base_url(options.get("host") or environ.get("OLLAMA_HOST", ""), origin)
        version = Api(url).version(_PROBE_S)
    except UsageError as error:
        if asked:
            raise
        _LOG.warning("%s", error.message)
        return None
    except RequestError as error:
        if asked:
            raise Unavailable(f"Ollama is not running: {error.message}", _START) from error
        return None
    process = server_at(url)
    pid = None if process is None else process.pid
    return Installation(
        backend="ollama",
        kind="server",
        location=url,
        version=version,
        options=_kept(options, folders_of_server(pid, environ))
        | ({} if pid is None else {"pid": str(pid)}),
    )


def program(options: Mapping[str, str], environ: Mapping[str, str]) -> Installation | None:
    """The program that ``-X binary`` names, else ``ollama`` on the path; ``None`` without one.

    Raises:
        Unavailable: the user asked for it, and it is not there or is something else.
    """
    named = options.get("binary")
    # Not every shell expands the "~" of binary=~/x; Path.expanduser raises for "~nobody".
    wanted = os.path.expanduser(named or "ollama")  # noqa: PTH111
    found = shutil.which(wanted, path=environ.get("PATH"))
    version = None if found is None else _version(found, environ)
    if found is not None and version is not None:
        return Installation(
            backend="ollama",
            kind="binary",
            location=str(Path(found).absolute()),
            version=version,
            options=_kept(options, users_folders(environ)),
        )
    if named is None and options.get("mode") != "private":
        return None
    what = f"{named} is no Ollama that can be run" if named else "there is no ollama on the PATH"
    raise Unavailable(
        f"{what}.", "Install it from https://ollama.com/download, or name it: -X binary=PATH"
    )


def _version(path: str, environ: Mapping[str, str]) -> str | None:
    with suppress(OSError):  # a TimeoutError is one too
        told = execute((path, "--version"), _PROBE_S, {**environ, "OLLAMA_HOST": _NOWHERE})
        match = _VERSION.search(told.out + told.err)
        return match[1] if match else None
    return None


def _kept(options: Mapping[str, str], places: tuple[Path, ...]) -> dict[str, str]:
    """What the other functions need to know of the probe."""
    kept = {name: options[name] for name in ("experimental",) if name in options}
    return kept | {"folders": os.pathsep.join(map(str, places))}


def users_pid(environ: Mapping[str, str]) -> int | None:
    """The process of the server that ``OLLAMA_HOST`` means, where it may be seen."""
    with suppress(UsageError):
        process = server_at(base_url(environ.get("OLLAMA_HOST", ""), "OLLAMA_HOST"))
        return None if process is None else process.pid
    return None


def users_folders(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where the models of the user's own Ollama may lie."""
    told = environ.get("OLLAMA_MODELS")
    return folders(told, environ) if told else folders_of_server(users_pid(environ), environ)


def folders_of_server(pid: int | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where the models of a server may lie whose process is ``pid``, if that may be seen."""
    return folders(models_folder(environ, Probe(environ=environ), pid), environ)


def folders_of(installation: Installation) -> tuple[Path, ...]:
    """Where its models may lie on this machine."""
    told = installation.options.get("folders", "")
    return tuple(Path(folder) for folder in told.split(os.pathsep) if folder)


def command(installation: Installation, *words: str) -> str:
    """What tells the server at ``installation`` something, for a shell: ``ollama stop NAME``."""
    said = " ".join(("ollama", *map(quoting.sh, words)))
    usual = installation.kind != "server" or installation.location == _USUAL
    return said if usual else f"OLLAMA_HOST={quoting.sh(installation.location)} {said}"


def pid_of(installation: Installation) -> int | None:
    """The process of a running server, where it was seen."""
    pid = installation.options.get("pid")
    return None if pid is None else int(pid)


def tells_arguments(installation: Installation) -> bool:
    """Whether its engine is a ``llama-server`` whose arguments can be seen.

    That is so since Ollama 0.30; earlier ones had engines of their own.
    """
    numbers = [int(part) for part in re.findall(r"\d+", installation.version or "")[:2]]
    ours = installation.kind == "binary" or pid_of(installation) is not None
    return ours and numbers >= [0, 30]


def models(installation: Installation) -> tuple[Model, ...]:
    """What it can answer with: first what is loaded, then what was pulled last.

    Models of a cloud and those that write no text are left out. Where the file of one is on this
    machine and may be read, its header is.
    """
    places = folders_of(installation)
    if installation.kind == "binary":
        found: dict[str, Pulled] = {}
        for entry in (entry for folder in places for entry in pulled(folder) if entry.weights):
            found.setdefault(str(entry.name).lower(), entry)
        return tuple(_known(str(entry.name), entry.weights) for entry in found.values())
    api = Api(installation.location)
    loaded = [held.name for held in api.ps()]
    listed = [model for model in api.tags() if model.completes]
    listed.sort(key=lambda model: loaded.index(model.name) if model.name in loaded else len(loaded))
    local = is_local(installation.location)
    return tuple(
        _known(model.name, _file(api, model, places) if local else None)
        for model in {model.name: model for model in listed}.values()
    )


def _file(api: Api, model: Listed, places: tuple[Path, ...]) -> Path | None:
    """The file of a model of a server on this machine: where it would lie, else where the server
    says.
    """
    with suppress(VeloError):
        entry = find(Name.parse(model.name), places, model.digest) if model.digest else None
        if entry is not None and entry.weights is not None:
            return entry.weights
        told = blob_of(api, model.name)
        return None if told is None else Path(told)
    return None


def blob_of(api: Api, name: str) -> str | None:
    """Where a server keeps a model's file, as it says itself."""
    told = _BLOB.search(str(api.show(name).get("modelfile", "")))
    return None if told is None else told[1]


def _known(name: str, weights: Path | None) -> Model:
    reference = name.removesuffix(":latest")
    if weights is not None and weights.is_absolute():
        with suppress(VeloError):  # a file that only the server may read
            known = resolve(str(weights), (), progress=lambda *_: None, environ={})
            return evolve(known, reference=reference, served_name=name)
    return Model(reference=reference, served_name=name)


def name_of(model: Model) -> str:
    """The name by which Ollama knows ``model``.

    Raises:
        ModelError: it is a file, and not one that Ollama has pulled.
    """
    scheme, _, rest = model.reference.partition(":")
    if model.served_name is not None:
        return model.served_name
    if scheme == "ollama":
        return str(Name.parse(rest))
    raise ModelError(
        f"Ollama does not know {model.reference}: it runs models by the names it has them under.",
        "Show them: ollama list. Get one: ollama pull NAME. Then name it: --model NAME",
    )


def pulled_as(model: Model, installation: Installation) -> Pulled:
    """``model`` as it lies on this machine.

    Raises:
        ModelError: it does not.
    """
    return have(Name.parse(name_of(model)), folders_of(installation))
