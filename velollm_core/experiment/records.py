"""From live arms to the records that a stranger may read: no host, no user, no home path, no
key.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

from attrs import evolve

from velollm_core.backends.contract import Installation
from velollm_core.config import LeftOut
from velollm_core.experiment.spec import (
    Arm,
    ArmRecord,
    EngineRecord,
    ModelRecord,
    Phase,
    Trial,
    WorkloadRecord,
)
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.models.spec import Model


def arm_record(arm: Arm) -> ArmRecord:
    """``arm`` without its live objects and without what names its user."""
    settings = arm.settings
    return ArmRecord(
        name=arm.name,
        mode=arm.mode,
        engine=engine_record(arm.installation),
        model=model_record(arm.model),
        config=settings.config,
        digest=settings_digest(arm),
        extra_flags=tuple(
            word.partition("=")[0] for word in settings.extra_args if word.startswith("-")
        ),
        origins={name: without_home(origin) for name, origin in settings.origins.items()},
        left_out=tuple(
            LeftOut(entry.name, without_home(entry.origin), without_home(entry.reason))
            for entry in settings.left_out
        ),
    )


def engine_record(installation: Installation) -> EngineRecord:
    """An installation without its path or address."""
    return EngineRecord(
        backend=installation.backend,
        kind=installation.kind,
        version=installation.version,
        build=installation.build,
        cpu_features=installation.cpu_features,
    )


def model_record(model: Model) -> ModelRecord:
    """A model under the last part of its name; directories say more about the user than about
    it.
    """
    name = model.served_name or model.reference
    if model.path is not None and model.reference == str(model.path):
        name = model.path.name
    return ModelRecord(name=Path(name).name or name, fingerprint=model.fingerprint, spec=model.spec)


def workload_record(phase: Phase) -> WorkloadRecord:
    """What a stranger needs to send the prompts of ``phase``."""
    return WorkloadRecord(
        name=phase.workload.name,
        digest=phase.workload.digest,
        requests=phase.requests,
        concurrency=phase.concurrency,
        warmup=phase.warmup,
        max_tokens=phase.max_tokens or phase.workload.max_tokens,
        duration_s=phase.duration_s,
        reuses_prefix=phase.workload.reuses_prefix,
    )


def anonymous_hardware(spec: HardwareSpec) -> HardwareSpec:
    """``spec`` with the serial identifiers of its cards hashed."""
    gpus = tuple(evolve(gpu, uuid=anonymous_uuid(gpu.uuid)) for gpu in spec.gpus)
    return evolve(spec, gpus=gpus)


def anonymous_uuid(uuid: str) -> str:
    """A name for a card that is the same in every result and leads back to no machine."""
    return f"gpu-{hashlib.sha256(uuid.encode()).hexdigest()[:12]}"


def anonymous_trial(trial: Trial, arm: Arm) -> Trial:
    """``trial`` whose messages name no folder of the user and no host but this machine's own."""
    phases = tuple(
        evolve(
            phase,
            samples=tuple(
                evolve(sample, error=_anonymous(sample.error, arm)) if sample.error else sample
                for sample in phase.samples
            ),
        )
        for phase in trial.phases
    )
    failure = trial.failure
    if failure is not None:
        failure = evolve(failure, message=_anonymous(failure.message, arm))
    return evolve(trial, phases=phases, failure=failure)


def _anonymous(text: str, arm: Arm) -> str:
    path, location = arm.model.path, arm.installation.location
    if path is not None:
        text = text.replace(str(path), path.name)
    if "://" in location:
        if urlsplit(location).hostname not in {"127.0.0.1", "localhost", "::1"}:
            text = text.replace(location.rstrip("/"), "the server")
    elif len(Path(location).parts) > 1:
        text = text.replace(location, Path(location).name)
    return without_home(text)


def settings_digest(arm: Arm) -> str:
    """What the figures depend on and the record does not show: arguments, and which server."""
    settings = arm.settings
    where = arm.installation.location if arm.mode == "attach" else ""
    parts = [list(settings.extra_args), sorted(settings.extra_env.items()), where]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def without_home(text: str) -> str:
    """``text`` with the home directory written as ``~``."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
