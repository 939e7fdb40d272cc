"""What can go wrong, as the user is told.

::

    VeloError                    exit 1
    ├── UsageError               exit 2   wrong option, value or file: names the key and the fix
    │   ├── DocumentError        exit 2   a document on disk cannot be read
    │   └── NeedsRestart         exit 2   a knob that a running server cannot change
    ├── Unavailable              exit 3   a backend or a model is not there
    │   ├── ModelError           exit 3   the model is missing, damaged or not what it says
    │   ├── LaunchError          exit 3   an engine did not start, or died
    │   └── RequestError         exit 3   a running server did not answer a request properly
    ├── Unsettled                exit 4   measured, but unstable or inconclusive
    └── Interrupted              exit 130 stopped by the user; what was measured is saved

``cli`` is the one place that catches :class:`VeloError`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class FailureKind(StrEnum):
    """How a trial ended when it did not end well. An outcome, never a zero."""

    CRASH = "crash"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    UNSTABLE = "unstable"
    INTERRUPTED = "interrupted"


class VeloError(Exception):
    """Base of everything that is shown to the user as one message.

    Args:
        message: one sentence that says what is wrong.
        hint: what to do next, or an empty string where there is nothing to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(VeloError):
    """Wrong usage: an option, a value, a file. Names the key and the fix."""

    exit_code = 2


class DocumentError(UsageError):
    """A document on disk is not what its schema says; nothing of it was used."""


class NeedsRestart(UsageError):  # noqa: N818 - the design's name
    """A knob was asked of a running server that only takes effect at its start."""


class Unavailable(VeloError):  # noqa: N818 - reads as what it says
    """A backend, an engine or a model cannot be had."""

    exit_code = 3


class ModelError(Unavailable):
    """A model is missing, damaged, or in a form that cannot be read."""


class LaunchError(Unavailable):
    """An engine did not start, or ended while it was needed.

    Args:
        message: what happened, with the engine's own last words where there are any.
        hint: the likely cause and what to do.
        kind: how the trial that needed the engine is recorded.
    """

    def __init__(self, message: str, hint: str = "", kind: FailureKind = FailureKind.CRASH) -> None:
        super().__init__(message, hint)
        self.kind = kind


class RequestError(Unavailable):
    """A server broke off, refused or never finished a request.

    Args:
        message: what happened.
        hint: what to do.
        kind: how the request is recorded.
        status: the status of HTTP, where the server refused with one.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        kind: FailureKind = FailureKind.CRASH,
        status: int | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.kind = kind
        self.status = status


class Unsettled(VeloError):  # noqa: N818 - reads as what it says
    """Measured, but too unstable or too little to answer."""

    exit_code = 4


class Interrupted(VeloError):  # noqa: N818 - reads as what it says
    """The user stopped the command; what was measured until then is saved."""

    exit_code = 130
