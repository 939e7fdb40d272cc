"""What Ollama has pulled: names, manifests and blobs in the folder that ``OLLAMA_MODELS`` names.

As in Ollama's ``types/model/name.go`` and ``manifest/``: a model is the file
``manifests/HOST/NAMESPACE/MODEL/TAG``, JSON whose layers name blobs by their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from velollm_core.errors import ModelError, UsageError
from velollm_ollama.values import cleaned

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAME = re.compile(
    r"(?:(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349})/)?"
    r"(?P<namespace>[A-Za-z0-9_][A-Za-z0-9_-]{0,79})/)?"
    rf"(?P<model>{_PART})(?::(?P<tag>{_PART}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")
_WEIGHTS = "application/vnd.ollama.image.model"
_PARAMETERS = "application/vnd.ollama.image.params"
_SERVICE = Path("/usr/share/ollama/.ollama/models")
"""Where the service of Ollama's installer for Linux keeps its models."""
_MOST_BYTES = 1 << 20


@frozen
class Name:
    """A model's name, in full."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Name:
        """``[[HOST/]NAMESPACE/]MODEL[:TAG]``, what is left out being Ollama's own registry,
        ``library`` and ``latest``.

        Raises:
            UsageError: Ollama would refuse such a name.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is no name of a model.", "Write MODEL, MODEL:TAG or NAMESPACE/MODEL:TAG"
            )
        return cls(
            match["host"] or _HOST,
            match["namespace"] or _NAMESPACE,
            match["model"],
            match["tag"] or _TAG,
        )

    def __str__(self) -> str:
        shown = f"{self.model}:{self.tag}"
        if self.host != _HOST:
            return f"{self.host}/{self.namespace}/{shown}"
        return shown if self.namespace == _NAMESPACE else f"{self.namespace}/{shown}"

    @property
    def short(self) -> str:
        """As people type it: without the tag ``latest``."""
        return str(self).removesuffix(f":{_TAG}")


def is_name(text: object) -> bool:
    """Whether ``text`` is a name that Ollama would take."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


@frozen(kw_only=True)
class Pulled:
    """A model that is here, in one of the folders. ``digest`` is that of its manifest, by which
    servers tell models apart; ``weights`` is its GGUF file, ``None`` where it has none or several,
    and ``parameters`` the file with its own, where it has some.
    """

    name: Name
    folder: Path
    digest: str
    weights: Path | None
    parameters: Path | None
    modified_s: float


def folders(named: str, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where models may lie: the folder that ``OLLAMA_MODELS`` names alone if it is set, else the
    user's own, and that of a service.
    """
    if named := cleaned(named):
        return (Path(named),)
    home = environ.get("HOME") or environ.get("USERPROFILE")
    own = (Path(home) / ".ollama" / "models",) if home else ()
    return (*own, _SERVICE)


def pulled(folder: Path) -> tuple[Pulled, ...]:
    """Every model in ``folder``, the one that was pulled last first; what cannot be read is left
    out.
    """
    found = [entry for path in _manifests(folder) if (entry := _read(folder, path)) is not None]
    return tuple(sorted(found, key=lambda entry: (-entry.modified_s, str(entry.name))))


def find(name: Name, places: tuple[Path, ...], digest: str | None = None) -> Pulled | None:
    """The model called ``name`` in the first of ``places`` that has it, with that ``digest`` of its
    manifest if one is given. Capital letters mean the same as small ones.
    """
    for folder in places:
        for path in _manifests(folder):
            entry = _read(folder, path)
            if entry is None or str(entry.name).lower() != str(name).lower():
                continue
            if digest in {None, entry.digest}:
                return entry
    return None


def have(name: Name, places: tuple[Path, ...]) -> Pulled:
    """As :func:`find`.

    Raises:
        ModelError: it is not here; the message says how to pull it.
    """
    entry = find(name, places)
    if entry is None:
        closed = [str(folder) for folder in places if _is_closed(folder)]
        hint = f"Pull it: ollama pull {name.short}. Models elsewhere: set OLLAMA_MODELS."
        if closed:
            hint = f"It may lie in {', '.join(closed)}, which you may not read."
        looked = ", ".join(map(str, places)) or "no folder"
        raise ModelError(
            f"Ollama has no model {name.short} on this machine; looked in {looked}.", hint
        )
    return entry


def _is_closed(folder: Path) -> bool:
    try:
        with os.scandir(folder / "manifests"):
            return False
    except PermissionError:
        return True
    except OSError:
        return False


def weights_of(name: Name, places: tuple[Path, ...]) -> Path:
    """The GGUF file of the model called ``name``.

    Raises:
        ModelError: it is not here, or is no GGUF model.
    """
    entry = have(name, places)
    if entry.weights is None:
        raise ModelError(
            f"{name.short} is no model in one GGUF file.", "Take one that Ollama runs with GGUF."
        )
    if not entry.weights.is_file():
        raise ModelError(
            f"the file of {name.short}, {entry.weights}, is missing or may not be read.",
            f"Pull it again: ollama pull {name.short}",
        )
    return entry.weights


def parameters_of(entry: Pulled) -> str:
    """The parameters that a model brings, a line each, as ``/api/show`` tells them; empty where it
    has none, or they cannot be read.
    """
    try:
        told = {} if entry.parameters is None else json.loads(_content(entry.parameters))
    except (OSError, ValueError, RecursionError):
        return ""
    pairs = told.items() if isinstance(told, dict) else ()
    return "\n".join(f"{name} {json.dumps(value)}" for name, value in pairs)


def _manifests(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(path for path in folder.glob("manifests/*/*/*/*") if path.is_file())


def _read(folder: Path, path: Path) -> Pulled | None:
    host, namespace, model, tag = path.parts[-4:]
    try:
        name = Name.parse(f"{host}/{namespace}/{model}:{tag}")
        raw = _content(path)
        modified_s = path.stat().st_mtime
        layers = [(layer["mediaType"], layer["digest"]) for layer in json.loads(raw)["layers"]]
    except (UsageError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None

    def blob(kind: str) -> Path | None:
        digests = [str(digest) for media, digest in layers if media == kind]
        if len(digests) != 1 or not _DIGEST.fullmatch(digests[0]):
            return None
        return folder / "blobs" / digests[0].replace(":", "-")

    return Pulled(
        name=name,
        folder=folder,
        digest=hashlib.sha256(raw).hexdigest(),
        weights=blob(_WEIGHTS),
        parameters=blob(_PARAMETERS),
        modified_s=modified_s,
    )


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)
