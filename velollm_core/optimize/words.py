"""Figures and requirements as a person reads them."""

from __future__ import annotations

from velollm_core.backends.advice import Requirements
from velollm_core.hardware.describe import gib, plural
from velollm_core.hardware.parsing import GIB, MIB


def size(count: int) -> str:
    """Bytes in GiB, or in MiB where that is less than one."""
    return gib(count) if count >= GIB else f"{count / MIB:.0f} MiB"


def round_figure(count: int) -> int:
    """``count`` without less than an eighth of it: the same when a little memory comes or goes."""
    step = 1 << max(0, count.bit_length() - 4)
    return count // step * step


def requirements(required: Requirements) -> str:
    """``8192 tokens a request and 4 requests at once``; empty where nothing is required."""
    tokens, parallel = required.context_tokens, required.parallel
    parts = [
        *([f"{plural(tokens, 'token')} a request"] if tokens else []),
        *([f"{plural(parallel, 'request')} at once"] if parallel else []),
    ]
    return " and ".join(parts)
