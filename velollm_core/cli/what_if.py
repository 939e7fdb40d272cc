"""``--what-if``: a machine that one does not own, from a line of text."""

from __future__ import annotations

import math
import re

from attrs import evolve

from velollm_core.errors import UsageError
from velollm_core.hardware.spec import GpuInfo, HardwareSpec, MemoryInfo

EXAMPLE = "gpu=24GiB@936GB/s,gpu=12GiB,ram=64GiB,bandwidth=50GB/s"

_PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)(i?)b", re.IGNORECASE)


def imagined(hardware: HardwareSpec, text: str) -> HardwareSpec:
    """``hardware`` with what ``text`` names in place of its own.

    ``gpu=SIZE`` is a graphics processor, ``gpu=SIZE@RATE`` one whose memory has that peak
    bandwidth. It can be repeated; those named stand in for all that are there, and ``gpu=0GiB`` is
    none. ``ram=SIZE`` is main memory that may be taken, ``bandwidth=RATE`` how fast it is. What is
    not named stays as it is here.

    Args:
        hardware: the machine at hand.
        text: parts with commas between them.

    Raises:
        UsageError: naming the part that is wrong.
    """
    gpus: list[GpuInfo] | None = None
    for part in text.split(","):
        key, sign, value = (word.strip() for word in part.partition("="))
        if not sign or not value:
            raise _wrong(part, "it is not of the form KEY=VALUE")
        if key == "gpu":
            gpus = [*(gpus or ()), _gpu(part, value, len(gpus or ()))]
        elif key == "ram":
            size = _size(part, value)
            memory = MemoryInfo(total_bytes=size, available_bytes=size)
            known = hardware.memory
            hardware = evolve(
                hardware,
                memory=evolve(
                    memory,
                    bandwidth_bytes_per_s=known.bandwidth_bytes_per_s,
                    bandwidth_method=known.bandwidth_method,
                ),
            )
        elif key == "bandwidth":
            hardware = evolve(
                hardware,
                memory=evolve(
                    hardware.memory,
                    bandwidth_bytes_per_s=_rate(part, value),
                    bandwidth_method="--what-if",
                ),
            )
        else:
            raise _wrong(part, f"there is no key {key!r}; known: gpu, ram, bandwidth")
    if gpus is None:
        return hardware
    return evolve(hardware, gpus=tuple(gpu for gpu in gpus if gpu.memory_total_bytes))


def _gpu(part: str, value: str, number: int) -> GpuInfo:
    size, sign, rate = value.partition("@")
    size_bytes = _size(part, size)
    return GpuInfo(
        uuid=f"what-if:{number}",
        vendor="other",
        name=f"imagined GPU {number}",
        index=number,
        memory_total_bytes=size_bytes,
        memory_free_bytes=size_bytes,
        memory_bandwidth_bytes_per_s=_rate(part, rate) if sign else None,
        source="--what-if",
    )


def _size(part: str, text: str) -> int:
    amount = _amount(text)
    if amount is None:
        raise _wrong(part, f"{text.strip()!r} is no size such as 24GiB or 24GB")
    return int(amount)


def _rate(part: str, text: str) -> float:
    amount = _amount(text.strip().removesuffix("/s")) if text.strip().endswith("/s") else None
    if not amount:
        raise _wrong(part, f"{text.strip()!r} is no rate such as 50GB/s")
    return amount


def _amount(text: str) -> float | None:
    """``GiB`` counts in powers of 1024, ``GB`` in powers of 1000."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        return None
    base = 1024 if match[3] else 1000
    return float(match[1]) * math.pow(base, _PREFIXES[match[2].lower()])


def _wrong(part: str, why: str) -> UsageError:
    return UsageError(f"--what-if: {part.strip()!r} cannot be used: {why}.", f"Example: {EXAMPLE}")
