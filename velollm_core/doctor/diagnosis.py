"""Asks every check, each under its own guard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve

from velollm_core import __version__
from velollm_core.doctor.spec import Check, Context, Diagnosis, Examination, Finding, Unseen
from velollm_core.errors import Interrupted


def diagnose(
    checks: Mapping[str, Iterable[Check]], context: Context
) -> tuple[Diagnosis, tuple[str, ...]]:
    """What all of ``checks`` say of the machine in ``context``, without the name of a home.

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
                found = tuple(_without_home(finding, context) for finding in check.look(context))
                unseen = None
            except Interrupted:
                raise
            except Unseen as reason:
                found, unseen = (), context.shown(str(reason))
            except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
                fault = context.shown(f"{type(error).__name__}: {error}")
                found, unseen = (), f"the check failed: {fault}"
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


def _without_home(finding: Finding, context: Context) -> Finding:
    """Here rather than in each check: paths come with names of engines and messages of errors."""
    return evolve(
        finding,
        statement=context.shown(finding.statement),
        evidence=context.shown(finding.evidence),
        cost=evolve(
            finding.cost,
            text=context.shown(finding.cost.text),
            source=context.shown(finding.cost.source),
        ),
        advice=context.shown(finding.advice),
    )
