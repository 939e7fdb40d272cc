"""What a doctor says: checks, what each of them found, and what the machine is looked at through.

Everything here is plain data. :class:`Context` holds what was gathered at the edges, so that a
check is a small function of it and can be tested on a planted machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from velollm_core.backends.contract import Backend, Installation
from velollm_core.config import Settings
from velollm_core.experiment.activity import Activity
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.models.spec import Model
from velollm_core.plugins import BrokenPlugin

if TYPE_CHECKING:
    from velollm_core.experiment.spec import Arm, Comparison

KIND = "doctor"
MAJOR = 1


class Unseen(Exception):  # noqa: N818 - no error: a check says why it could not look
    """Raised by a check that cannot look, with the reason in a few words."""


@frozen(kw_only=True)
class Cost:
    """What a finding costs, and how that is known.

    ``measured`` was measured on this machine, ``cited`` is said by ``source``, and ``seen`` follows
    from the evidence alone.
    """

    text: str
    basis: Literal["measured", "cited", "seen"]
    source: str = ""


@frozen(kw_only=True)
class Finding:
    """One thing that holds the machine or the installation back.

    ``statement`` is one sentence, ``evidence`` says how it was seen, ``advice`` what to do.
    ``costs_speed`` is false for a mere remark, which does not change the exit code.
    """

    statement: str
    evidence: str
    cost: Cost
    advice: str
    costs_speed: bool


@frozen(kw_only=True)
class Examination:
    """What came of one check. ``unseen`` says why it could not look, ``None`` where it did."""

    code: str
    plugin: str
    looks_at: str
    findings: tuple[Finding, ...] = ()
    unseen: str | None = None


@frozen(kw_only=True)
class Diagnosis:
    """Every check and what came of it (``velollm.doctor/1``)."""

    velollm_version: str
    costs_speed: bool
    checks: tuple[Examination, ...]


@frozen(kw_only=True)
class Folder:
    """A folder that VeloLLM writes to, which need not be there yet.

    ``variable`` names another in the environment. ``obstacle`` says why nothing can be written
    there; ``needed_bytes`` is the room that is wanted.
    """

    purpose: str
    path: Path
    variable: str
    obstacle: str | None = None
    free_bytes: int | None = None
    needed_bytes: int = 0


@frozen(kw_only=True)
class Engine:
    """An engine that would be used, as it would be run today.

    ``others`` are further builds that the backend finds, ``pids`` the processes of a server that
    runs already. ``settings`` is ``None`` where they cannot
    be read, and ``fault`` says why.
    """

    backend: Backend
    installation: Installation
    model: Model
    settings: Settings | None
    fault: str = ""
    others: tuple[Installation, ...] = ()
    pids: tuple[int, ...] = ()


@frozen(kw_only=True)
class Script:
    """A user's script: how it is shown, and what it says. It is read and never run."""

    shown: str
    text: str


Compare = Callable[["Arm", "Arm"], "tuple[Comparison, ...]"]
"""Measures the second arm against the first, interleaved: one answer for each kind of work."""


@frozen(kw_only=True)
class Context:
    """What checks look at.

    ``compare`` is there only if the user asked to measure: without it no check starts an engine.
    """

    hardware: HardwareSpec
    probe: Probe
    activity: Activity
    folders: tuple[Folder, ...] = ()
    engines: tuple[Engine, ...] = ()
    broken_plugins: tuple[BrokenPlugin, ...] = ()
    scripts: tuple[Script, ...] = ()
    compare: Compare | None = None

    @property
    def configured(self) -> tuple[tuple[Engine, Settings], ...]:
        """The engines whose settings are known.

        Raises:
            Unseen: there are none.
        """
        known = tuple((e, e.settings) for e in self.engines if e.settings is not None)
        if not known:
            faults = [engine.fault for engine in self.engines]
            raise Unseen(faults[0] if faults else "no engine was found")
        return known

    @property
    def environ(self) -> Mapping[str, str]:
        """The user's environment."""
        return self.probe.environ

    def shown(self, text: str | Path) -> str:
        """``text``, a path or a sentence with paths in it, with the user's home as ``~``."""
        told = str(text)
        for variable in ("HOME", "USERPROFILE"):
            home = self.environ.get(variable, "").rstrip("/\\")
            if home:
                told = re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w-]|\.\w)", "~", told)
        return told


@frozen(kw_only=True)
class Check:
    """A question to the machine.

    ``code`` is its stable name, ``looks_at`` completes "looked at ...", ``explains`` is a sentence
    for the list of all checks. ``look`` yields what it finds and raises :class:`Unseen` where it
    cannot look; that it finds nothing means that all is well.
    """

    code: str
    looks_at: str
    explains: str
    look: Callable[[Context], Iterable[Finding]] = field(repr=False)
