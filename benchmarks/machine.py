"""The machine that a check runs on: at rest, and as the runner needs it."""

from __future__ import annotations

import os
import time

from velollm_core.experiment.conditions import spoilers
from velollm_core.experiment.monitor import SystemMonitor
from velollm_core.experiment.runner import Surroundings
from velollm_core.hardware.detect import available_bytes, detect, fingerprint
from velollm_core.hardware.spec import HardwareSpec

SERVER = os.environ.get("VELOLLM_TEST_LLAMA_SERVER")
ENGINE = {"server": SERVER} if SERVER else {"engine": "embedded"}
"""``-X`` options: the llama-server that is named, else the embedded engine."""
ENGINE_NAME = "llama-server" if SERVER else "embedded"

_AT_REST_S = 600


def hardware() -> HardwareSpec:
    """What VeloLLM knows of this machine; the engines that are used here know no GPU."""
    return detect(gpus=lambda _: ())


def surroundings() -> Surroundings:
    """This machine, as ``velollm`` hands it to the runner."""
    return Surroundings(
        environ={
            name: value for name, value in os.environ.items() if not name.startswith("VELOLLM_")
        },
        available_bytes=available_bytes,
        monitor=SystemMonitor(available_bytes),
        hardware_fingerprint=fingerprint(hardware()),
    )


def wait_for_rest() -> None:
    """Wait until nothing else is at work here.

    Raises:
        SystemExit: something still is after ten minutes.
    """
    deadline = time.monotonic() + _AT_REST_S
    while found := spoilers(hardware().cpu.usable):
        if time.monotonic() > deadline:
            raise SystemExit("; ".join(found))
        time.sleep(10)
