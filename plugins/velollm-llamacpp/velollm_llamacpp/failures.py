"""Why llama.cpp did not start, from its last words."""

from __future__ import annotations

import re

from attrs import frozen

from velollm_core.backends.processes import describe_exit
from velollm_core.errors import FailureKind


@frozen
class Cause:
    """How a failure is recorded, and what it means to the user."""

    kind: FailureKind
    hint: str


def _refusal(hint: str) -> Cause:
    return Cause(FailureKind.REFUSED, hint)


_CAUSES: dict[str, Cause] = {
    "insufficient memory|failed to allocate|unable to allocate|cannot allocate memory"
    "|out of memory|OutOfDeviceMemory|bad_alloc": Cause(
        FailureKind.OUT_OF_MEMORY,
        "Out of memory: lower the context, the slots or the layers on the GPU, "
        "or take a smaller model.",
    ),
    "invalid magic|failed to read magic|bad magic|not a gguf": _refusal(
        "The model is not a GGUF file."
    ),
    "not within the file bounds|corrupted or incomplete|unexpectedly reached end of file"
    "|failed to read tensor|failed to read key-value|gguf_init_from_reader: failed": _refusal(
        "The model's file is damaged or was cut off: fetch it again."
    ),
    "unknown model architecture|unsupported model architecture": _refusal(
        "This build of llama.cpp does not know the model's architecture: use a newer one."
    ),
    "couldn't bind|could not bind|address already in use": _refusal(
        "The port is taken by another program: end it, or try again."
    ),
    "quantized V cache|V cache quantization": _refusal(
        "A quantized cache_type_v needs flash_attention on."
    ),
    "invalid argument|unknown argument|error while handling|argument has been removed": _refusal(
        "This build of llama.cpp does not take that flag or value."
    ),
    "error while loading shared libraries|library not loaded|cannot open shared object": _refusal(
        "A library of the engine is missing: install it, or name another -X server=PATH."
    ),
    "failed to open GGUF file": _refusal("The model's file is not there or may not be read."),
}
_LOADING = re.compile("failed to load model|error loading model", re.IGNORECASE)
_NOT_LOADED = _refusal("llama.cpp cannot load this model.")
_BY_SIGNAL = {
    -4: Cause(
        FailureKind.CRASH,
        "The engine was built for another processor (illegal instruction): "
        "use -X engine=embedded or a build of your own.",
    ),
    -9: Cause(
        FailureKind.CRASH,
        "It was killed from outside. If nobody did it, the system did for lack of memory: "
        "lower the context or take a smaller model.",
    ),
}
_UNKNOWN = Cause(FailureKind.CRASH, "llama.cpp gave no reason beyond its last lines.")
_STAMP = re.compile(r"^\d+\.\d+\.\d+\.\d+ ")
_NO_ERROR = re.compile(r"[DIW] |.*\b[Ww]arning: ")
_QUOTED = 8


@frozen
class Explained:
    """A failure as the user is told."""

    message: str
    cause: Cause


def explain(what: str, exit_code: int, log: str) -> Explained:
    """How a server ended, with its own words, and the likely cause.

    Args:
        what: how messages call it.
        exit_code: negative for a signal.
        log: the end of its log; the decisive line may stand well before the last.
    """
    lines = [_STAMP.sub("", line).rstrip() for line in log.splitlines() if line.strip()]
    decisive, cause = _decisive(lines)
    if cause is None:
        cause = _BY_SIGNAL.get(exit_code, _UNKNOWN)
    last = lines[-_QUOTED:]
    if decisive is not None and decisive not in last:
        last = [decisive, "...", *last[-3:]]
    return Explained(f"{what} ended with {describe_exit(exit_code)}.{quote(last)}", cause)


def _decisive(lines: list[str]) -> tuple[str | None, Cause | None]:
    """The last line that names a cause, without its stamp, and that cause.

    That the model was not loaded is what every cause ends in, and counts only for want of another.
    """
    errors = [line for line in reversed(lines) if not _NO_ERROR.match(line)]
    for line in errors:
        for pattern, cause in _CAUSES.items():
            if re.search(pattern, line, re.IGNORECASE):
                return line, cause
    loading = next((line for line in errors if _LOADING.search(line)), None)
    return loading, _NOT_LOADED if loading else None


def quote(lines: list[str]) -> str:
    """A server's last lines, as the rest of a message."""
    if not lines:
        return " It said nothing."
    return " Its last lines:\n" + "\n".join(f"    {line}" for line in lines)
