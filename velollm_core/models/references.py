"""How a model is named: a path, or ``scheme:rest`` for a source that a plugin registers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from velollm_core.errors import ModelError, UsageError
from velollm_core.models.fingerprint import fingerprint
from velollm_core.models.header import model_spec
from velollm_core.models.parts import read_model_files
from velollm_core.models.spec import Model

Progress = Callable[[int, int | None, str], None]
"""Called while something is fetched: bytes so far, bytes in all if known, and what it is."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+", re.IGNORECASE)  # one letter is a drive of Windows


class ModelSource(ABC):
    """Turns references of one scheme into files on this machine.

    ``scheme`` is what stands before the colon; a reference that is the scheme alone has an empty
    rest. ``summary`` says in a few words what there is to be had.
    """

    scheme: str
    summary: str

    @abstractmethod
    def resolve(self, rest: str, progress: Progress, environ: Mapping[str, str]) -> Path:
        """The model's GGUF file (of a split model, its first), fetched if it is not here yet.

        Args:
            rest: the reference without ``scheme:``.
            progress: told of every step of a download; nothing is printed here.
            environ: the environment variables to go by.

        Raises:
            ModelError: the model cannot be had.
            UsageError: ``rest`` is not of the form that this source takes.
        """


def resolve(
    reference: str,
    sources: Iterable[ModelSource],
    *,
    progress: Progress,
    environ: Mapping[str, str],
) -> Model:
    """The model that ``reference`` names, with its header read.

    Args:
        reference: a path to a GGUF file (``~`` allowed; of a split model, any part), or
            ``scheme:rest`` for one of ``sources``. A file that is called like a scheme is named
            with ``./``.
        sources: where models may come from.
        progress: told of every step of a download.
        environ: environment variables, for the sources.

    Raises:
        ModelError: there is no such model, or its file is damaged.
        UsageError: there is no such scheme.
    """
    files = read_model_files(_locate(reference, sources, progress, environ).absolute())
    return Model(
        reference=reference,
        path=files[0].path,
        spec=model_spec(files),
        fingerprint=fingerprint(files),
    )


def _locate(
    reference: str, sources: Iterable[ModelSource], progress: Progress, environ: Mapping[str, str]
) -> Path:
    by_scheme = {source.scheme: source for source in sources}
    scheme, colon, rest = reference.partition(":")
    if scheme in by_scheme:
        return by_scheme[scheme].resolve(rest, progress, environ)
    try:
        path = Path(reference).expanduser()
    except RuntimeError as error:
        raise ModelError(
            f"{reference} cannot be found: {error}", "Write the path in full."
        ) from error
    if colon and _SCHEME.fullmatch(scheme) and not path.exists():
        raise UsageError(
            f"there is no model source {scheme!r}; known: {', '.join(sorted(by_scheme))}.",
            "Give the path of a .gguf file, or one of these schemes.",
        )
    return path
