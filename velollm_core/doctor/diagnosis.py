"""Asks every check, each under its own guard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from velollm_core import __version__
from velollm_core.doctor.spec import Check, Context, Diagnosis, Examination, Unseen
from velollm_core.errors import Interrupted


def diagnose(
    checks: Mapping[str, Iterable[Check]], context: Context
) -> tuple[Diagnosis, tuple[str, ...]]:
    """What all of ``checks`` say of the machine in ``context``.

    Args:
        checks: by the name of the plugin that offers them.
        context: the machine.

    Returns:
        the diagnosis, and a line for each check that failed: it costs its own findings alone.

    Raises:
        Interrupted: the user stopped a measurement.
    """
    examinations: list[Examination] = []
    failures: list[str] = []
    for plugin, offered in checks.items():
        for check in offered:
            try:
                found, unseen = tuple(check.look(context)), None
            except Interrupted:
                raise
            except Unseen as reason:
                found, unseen = (), str(reason)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
                found, unseen = (), f"the check failed: {type(error).__name__}: {error}"
                failures.append(f"check {check.code} of plugin {plugin}: {unseen}")
            examinations.append(
                Examination(
                    code=check.code,
                    plugin=plugin,
                    looks_at=check.looks_at,
                    findings=found,
                    unseen=unseen,
                )
            )
    return (
        Diagnosis(
            velollm_version=__version__,
            costs_speed=any(
                finding.costs_speed for entry in examinations for finding in entry.findings
            ),
            checks=tuple(examinations),
        ),
        tuple(failures),
    )
