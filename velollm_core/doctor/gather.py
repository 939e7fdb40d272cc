"""Gathers what checks look at: engines as they would be run today, and VeloLLM's own folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import evolve

from velollm_core.backends.contract import Backend, Installation
from velollm_core.config import Config
from velollm_core.doctor.spec import Engine, Folder
from velollm_core.errors import ModelError, VeloError
from velollm_core.models.demo import cache_directory
from velollm_core.models.demo_file import DEMO_FILE, is_whole
from velollm_core.models.references import ModelSource, resolve
from velollm_core.models.spec import Model

DEMO = "demo"


def engines(
    backends: Iterable[Backend],
    options: Mapping[str, str],
    model: Callable[[], Model],
    environ: Mapping[str, str],
) -> tuple[tuple[Engine, ...], tuple[str, ...]]:
    """The first engine of each backend, with the settings that it would have today.

    Args:
        backends: those to ask.
        options: the ``-X`` values of the user.
        model: what would be loaded; asked only where an engine has nothing loaded.
        environ: the user's environment.

    Returns:
        the engines, and a sentence for each backend that failed.

    Raises:
        VeloError: what ``options`` name is not there, or ``model`` is not.
    """
    found: list[Engine] = []
    faults: list[str] = []
    for backend in backends:
        try:
            engine = _engine(backend, options, model, environ)
        except ModelError:
            raise
        except VeloError:
            if options:
                raise
            continue  # what this backend needs is not here
        except Exception as error:  # noqa: BLE001 - one adapter's fault must not cost the others
            faults.append(f"backend {backend.name} failed: {type(error).__name__}: {error}")
            continue
        if engine is not None:
            found.append(engine)
    return tuple(found), tuple(faults)


def _engine(
    backend: Backend,
    options: Mapping[str, str],
    model: Callable[[], Model],
    environ: Mapping[str, str],
) -> Engine | None:
    installations = list(backend.probe(options, environ))
    if not installations:
        return None
    first = installations[0]
    if options and first.kind != "server":
        installations += backend.probe({}, environ)
    others: dict[str, Installation] = {entry.location: entry for entry in installations[1:]}
    others.pop(first.location, None)
    engine = Engine(
        backend=backend,
        installation=first,
        model=next(iter(backend.models(first)), None) or model(),
        settings=None,
        others=tuple(others.values()),
    )
    if first.kind == "server":
        with backend.attach(first, engine.model, Config()) as session:
            engine = evolve(engine, pids=session.pids)
    try:
        return evolve(engine, settings=backend.current(first, engine.model, environ))
    except VeloError as error:
        return evolve(engine, fault=error.message)


def model_at_hand(
    reference: str | None, sources: Iterable[ModelSource], environ: Mapping[str, str]
) -> Model:
    """The model that would be used, its header read if it is on this machine: nothing is fetched.

    Raises:
        ModelError: ``reference`` is a path, and there is no model.
    """
    named = reference or DEMO
    path = Path(named)
    if named == DEMO:
        path = _demo_file(environ)
        if not is_whole(path):
            return Model(reference=DEMO)
    elif named.partition(":")[0] in {source.scheme for source in sources}:
        return Model(reference=named)
    found = resolve(str(path), (), progress=lambda *_: None, environ=environ)
    return evolve(found, reference=named)


def needs_demo(reference: str | None, environ: Mapping[str, str]) -> bool:
    """Whether the demo model would be fetched."""
    return reference in {None, DEMO} and not is_whole(_demo_file(environ))


def _demo_file(environ: Mapping[str, str]) -> Path:
    return cache_directory(environ) / "models" / DEMO_FILE


def folder(
    path: Path, *, purpose: str, variable: str, file: str = "", needed_bytes: int = 0
) -> Folder:
    """What becomes of a write below ``path``, which need not be there yet.

    Args:
        path: the folder.
        purpose: what is kept there.
        variable: the environment variable that names another.
        file: a file in it that is written to, if it is there.
        needed_bytes: the room that is wanted.
    """
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    obstacle = None
    if not there.is_dir():
        obstacle = "a file stands where a folder is wanted"
    elif not os.access(there, os.W_OK | os.X_OK):
        obstacle = "no permission to write there"
    elif file and (path / file).exists() and not os.access(path / file, os.W_OK):
        obstacle = f"no permission to write {file}"
    return Folder(
        purpose=purpose,
        path=path,
        variable=variable,
        obstacle=obstacle,
        free_bytes=shutil.disk_usage(there).free if there.is_dir() else None,
        needed_bytes=needed_bytes,
    )
