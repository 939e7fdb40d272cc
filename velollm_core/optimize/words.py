"""Figures as a person reads them."""

from __future__ import annotations

from velollm_core.hardware.parsing import GIB, MIB


def size(count: int) -> str:
    """Bytes in GiB, or in MiB where that is less than one."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def plural(count: int, noun: str) -> str:
    """``1 slot``, ``4 slots``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def round_figure(count: int) -> int:
    """The largest power of two in ``count``: the same when a little memory comes or goes."""
    return 1 << (count.bit_length() - 1)
