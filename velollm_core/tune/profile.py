"""Profiles: configurations that were proven, kept by name, and held against what there is now.

A profile may come from anybody: nothing in it is trusted, and each value is checked against the
knobs of the engine that is to have it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from velollm_core.backends.contract import Backend, Installation
from velollm_core.config import Config, Settings, problems, show
from velollm_core.documents import read as read_document
from velollm_core.documents import write as write_document
from velollm_core.errors import DocumentError, UsageError
from velollm_core.experiment.measures import METRICS
from velollm_core.experiment.spec import EngineRecord, ModelRecord, WorkloadRecord
from velollm_core.models.spec import Model
from velollm_core.tune.constraints import parse_constraint
from velollm_core.tune.spec import (
    PROFILE_KIND,
    PROFILE_MAJOR,
    Conclusion,
    Constraint,
    Profile,
    Term,
    TuneResult,
)

FOLDER = "profiles"
"""Where profiles are, within the data folder."""

_AGAIN = "Tune again: velollm tune"
_SUFFIX = ".json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNNAMED = re.compile(r"[^A-Za-z0-9._-]+")
_COUNTS = {
    "requests": (1, 1_000_000),
    "concurrency": (1, 1024),
    "warmup": (0, 1000),
    "max_tokens": (1, 1_000_000),
}
"""The least and the most that a workload of a profile may ask for."""
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-9, 1e9


def profile_of(result: TuneResult, name: str) -> Profile:
    """What ``result`` proved, under ``name``.

    Raises:
        UsageError: it proved nothing, or ``name`` is none.
    """
    if result.conclusion is not Conclusion.FASTER:
        raise UsageError(
            f"run {result.run} found nothing that is proven to be faster: {result.conclusion}.",
            "There is no profile of it.",
        )
    checked_name(name)
    proposed = result.task.proposed
    return Profile(
        name=name,
        created_at=result.created_at,
        velollm_version=result.velollm_version,
        run=result.run,
        backend=result.engine.backend,
        engine=result.engine,
        model=result.model,
        hardware_fingerprint=result.hardware_fingerprint,
        config=result.changes if proposed is None else proposed,
        base=result.current,
        objective=result.task.objectives[0],
        workloads=result.task.workloads,
        requirements=result.task.requirements,
        constraints=result.task.constraints,
        evidence=result.answers,
    )


def usual_name(result: TuneResult) -> str:
    """What a profile is called that the user gives no name: by its model and its objective."""
    texts = (result.model.name.removesuffix(".gguf"), result.task.objectives[0].name)
    words = [_UNNAMED.sub("-", text).strip("-._") for text in texts]
    return "-".join(filter(None, words))[:100] or "profile"


def checked_name(name: str) -> str:
    """``name``, which a file can be called by on every system.

    Raises:
        UsageError: it cannot.
    """
    if not _NAME.fullmatch(name) or name.endswith(_SUFFIX):
        raise UsageError(
            f"a profile cannot be called {name!r}.",
            "It takes letters, digits, '.', '_' and '-', for example: qwen-decode",
        )
    return name


def place(folder: Path, name: str) -> Path:
    """The file that ``name`` means: the profile of that name in ``folder``, or a file by its path,
    which ends with ``.json``.
    """
    if name.endswith(_SUFFIX):
        return Path(name)
    return folder / f"{checked_name(name)}{_SUFFIX}"


def place_to_write(folder: Path, name: str) -> Path:
    """As :func:`place`, for a profile that is to be called as its file is.

    Raises:
        UsageError: no profile can be called so, or nothing can be written there.
    """
    path = place(folder, name)
    checked_name(path.stem)
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(
            f"no profile can be written into {path.parent}: {there} is no folder, or not yours.",
            "Name another file, or another data folder in VELOLLM_DATA_DIR.",
        )
    return path


def read(folder: Path, name: str) -> Profile:
    """The profile called ``name``, or in the file of that path.

    Raises:
        UsageError: there is none.
        DocumentError: it is no profile, or of another version.
    """
    path = place(folder, name)
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in folder.glob(f"*{_SUFFIX}")))
        raise UsageError(
            f"there is no profile {name!r}; there are: {known or 'none'}.",
            "Make one: velollm tune --name NAME",
        )
    return read_document(path, PROFILE_KIND, PROFILE_MAJOR, Profile)


def name_of(folder: Path, run: str) -> str | None:
    """What the profile in ``folder`` is called that ``run`` made; ``None`` where there is none."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with suppress(DocumentError, UsageError):
            if read(folder, path.stem).run == run:
                return path.stem
    return None


def write(path: Path, profile: Profile) -> None:
    """Write ``profile``, whole or not at all.

    Raises:
        UsageError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path.parent} cannot be made: {error.strerror}.",
            "Name another data folder in VELOLLM_DATA_DIR.",
        ) from error
    write_document(path, PROFILE_KIND, PROFILE_MAJOR, profile)


def settings_of(
    profile: Profile, backend: Backend, installation: Installation, model: Model
) -> Settings:
    """The knobs that ``profile`` sets, and no others.

    Raises:
        UsageError: it is of another backend, or this engine does not take what it sets.
    """
    whose = f"profile {profile.name}"
    if profile.backend != backend.name:
        raise UsageError(
            f"{whose} is for backend {profile.backend}, not for {backend.name}.",
            f"Use it with --backend {profile.backend}",
        )
    knobs = backend.knobs(installation, model)
    found = problems(knobs, profile.config) or backend.check(installation, model, profile.config)
    for problem in found:
        raise UsageError(f"{whose}: {problem.message}", _AGAIN)
    beyond = [
        knob.name for knob in knobs if knob.name in profile.config and knob.scope != "process"
    ]
    if beyond:
        raise UsageError(
            f"{whose} sets {', '.join(beyond)}, which is not the server's own.", _AGAIN
        )
    return Settings(config=profile.config, origins=dict.fromkeys(profile.config, whose))


def refuse_unmeasurable(profile: Profile) -> None:
    """Make sure that ``profile`` says how it can be measured again.

    Raises:
        UsageError: its workloads, its objective or its limits mean nothing; the key is named.
    """
    fault = next(_faults(profile), None)
    if fault is not None:
        raise UsageError(f"profile {profile.name}: {fault}.", _AGAIN)


def fits(
    measured: Profile | TuneResult,
    hardware_fingerprint: str,
    engine: EngineRecord,
    model: ModelRecord,
) -> tuple[str, ...]:
    """In what the engine, the model and the machine differ from those it was measured with.

    Args:
        measured: what was measured.
        hardware_fingerprint: this machine's.
        engine: the engine that is there now.
        model: the model that is meant now.

    Returns:
        a sentence for each, without its full stop; none where it holds as it was measured.
    """
    return tuple(_differences(measured, hardware_fingerprint, engine, model))


def moved_since(profile: Profile, current: Config) -> tuple[str, ...]:
    """What the user's own settings are now and were not when ``profile`` was measured over them:
    ``threads is 4, and was 2``. Knobs that the profile sets are left out.

    Args:
        profile: what was measured.
        current: all that is in force now, the engine's defaults included: what the user has taken
            out since is as the engine has it.
    """
    return tuple(
        f"{name} is {show(value)}, and was {show(profile.base[name])}"
        for name, value in current.items()
        if name not in profile.config and profile.base.get(name, value) != value
    )


def is_other_model(before: ModelRecord, now: ModelRecord) -> bool:
    """Whether they are two models: by their fingerprints, or by name where one has none."""
    if before.fingerprint is not None and now.fingerprint is not None:
        return before.fingerprint != now.fingerprint
    return before.name != now.name


def _faults(profile: Profile) -> Iterator[str]:
    """What of ``profile`` cannot be measured as it says, by its keys."""
    yield from _faults_of_workloads(profile.workloads)
    phases = {(work.name, work.concurrency) for work in profile.workloads}
    if not profile.objective.terms:
        yield "objective.terms is empty, so that nothing would count"
    for number, term in enumerate(profile.objective.terms):
        for fault in _faults_of_term(term, phases):
            yield f"objective.terms[{number}]{fault}"
    for number, limit in enumerate(profile.constraints):
        if not _as_typed(limit):
            yield f"constraints[{number}] is not what its text says, {limit.text!r}"


def _faults_of_workloads(workloads: Sequence[WorkloadRecord]) -> Iterator[str]:
    seen: set[tuple[str, int]] = set()
    for number, work in enumerate(workloads):
        for name, (least, most) in _COUNTS.items():
            count = getattr(work, name)
            if not least <= count <= most:
                yield f"workloads[{number}].{name} is {count}, where it takes {least} to {most}"
        if (work.name, work.concurrency) in seen:
            yield f"workloads[{number}] is {work.name!r} x{work.concurrency} once more"
        seen.add((work.name, work.concurrency))


def _faults_of_term(term: Term, phases: Collection[tuple[str, int]]) -> Iterator[str]:
    if term.metric not in METRICS:
        yield f".metric is {term.metric!r}, where it takes one of {', '.join(METRICS)}"
    if not _LEAST_WEIGHT <= term.weight <= _MOST_WEIGHT:
        limits = f"{_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g}"
        yield f".weight is {term.weight:g}, where it takes a number above 0, {limits}"
    if (term.workload, term.concurrency) not in phases:
        yield f" counts {term.workload!r} x{term.concurrency}, which is not among its workloads"


def _as_typed(limit: Constraint) -> bool:
    try:
        return parse_constraint(limit.text) == limit
    except UsageError:
        return False


def _differences(
    measured: Profile | TuneResult,
    hardware_fingerprint: str,
    engine: EngineRecord,
    model: ModelRecord,
) -> Iterator[str]:
    before = measured.engine
    if _build(before) != _build(engine):
        yield f"it was measured with {_named(before)}, and this is {_named(engine)}"
    if is_other_model(measured.model, model):
        yield f"it was measured with model {measured.model.name}, and this is {model.name}"
    if measured.hardware_fingerprint != hardware_fingerprint:
        yield "it was measured on another machine"


def _build(engine: EngineRecord) -> tuple[str | None, ...]:
    return (engine.backend, engine.kind, engine.version, engine.build)


def _named(engine: EngineRecord) -> str:
    version = "of an unknown version" if engine.version is None else engine.version
    build = "" if engine.build is None else f", build {engine.build}"
    return f"{engine.backend} {version} ({engine.kind}{build})"
