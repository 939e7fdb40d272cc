"""What a trial is known by: a hash of everything that its figures depend on.

Resume and staleness look at nothing else, so whatever would make two trials incomparable belongs in
here, and nothing that changes between two runs of the same thing does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from velollm_core.documents import to_plain
from velollm_core.experiment.spec import RUNNER_VERSION, ArmRecord, WorkloadRecord


def trial_key(
    arm: ArmRecord, workloads: Sequence[WorkloadRecord], hardware_fingerprint: str, seed: int
) -> str:
    """32 hexadecimal digits over arm, engine build, model, machine, phases, seed and runner
    version.

    The arm's name and the origins of its values are left out: they change nothing that is measured.
    """
    engine, model = arm.engine, arm.model
    parts = {
        "runner": RUNNER_VERSION,
        "mode": arm.mode,
        "engine": [engine.backend, engine.kind, engine.version, engine.build],
        "model": model.fingerprint or model.name,
        "config": to_plain(arm.config),
        "settings": arm.digest,
        "machine": hardware_fingerprint,
        "phases": to_plain(list(workloads)),
        "seed": seed,
    }
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
