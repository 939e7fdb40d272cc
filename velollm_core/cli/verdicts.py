"""What the answers of a comparison mean for the exit code."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.errors import Unsettled, VeloError
from velollm_core.experiment.comparison import slower_than
from velollm_core.experiment.spec import Comparison
from velollm_core.report.comparisons import ratio_text
from velollm_core.statistics import Verdict


def judge(comparisons: Sequence[Comparison], limit: float | None) -> None:
    """Nothing where every answer is one, and with ``limit`` none is slower by more than that part.

    Raises:
        VeloError: something is slower by more than ``limit``.
        Unsettled: something stays open.
    """
    if limit is None:
        open_rows = [row for row in comparisons if row.verdict is Verdict.INCONCLUSIVE]
    else:
        answers = [(row, slower_than(row, limit)) for row in comparisons]
        slower = [row for row, answer in answers if answer]
        if slower:
            raise VeloError(f"slower by more than {limit * 100:g} %: {_rows(slower)}.")
        open_rows = [row for row, answer in answers if answer is None]
    if open_rows:
        raise Unsettled(f"inconclusive: {_rows(open_rows)}.", _hint(open_rows))


def _rows(rows: Sequence[Comparison]) -> str:
    return ", ".join(f"{row.workload} x{row.concurrency} {ratio_text(row)}" for row in rows)


def _hint(rows: Sequence[Comparison]) -> str:
    needed = [row.pairs_to_decide for row in rows if row.pairs_to_decide is not None]
    if not needed:
        return "A quieter machine, more requests a launch or more --launches may tell."
    return f"Measure anew with --launches {max(needed)}, which would probably tell."
