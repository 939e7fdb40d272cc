"""The tables of a benchmark as text cells, for whatever prints them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, frozen

from velollm_core.experiment.notes import DISAGREEMENT
from velollm_core.experiment.summary import Estimate, SummaryRow

EMPTY = "–"  # noqa: RUF001 - a dash that no figure is mistaken for
"""What a table shows for a figure that cannot be told."""


@frozen(kw_only=True)
class Table:
    """Cells of text.

    The first ``labels`` columns say what a row is about; ``units`` are the numbers of columns after
    them that belong together. Headings have one or two lines. Rows are as long as ``headings``.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int
    units: tuple[int, ...]


@frozen
class _Column:
    heading: str
    cell: Callable[[SummaryRow], str]


_Unit = tuple[_Column, ...]


def tables(rows: Sequence[SummaryRow]) -> tuple[Table, ...]:
    """Latency, speed, and how the runs went. Columns without any figure are left out."""
    labels = [
        _Column("workload", lambda row: row.workload),
        _Column("clients", lambda row: str(row.concurrency)),
    ]
    if len({row.arm for row in rows}) > 1:
        labels.insert(0, _Column("arm", lambda row: row.arm))
    contents = {
        "Latency, ms": _LATENCY,
        "Speed, tokens a second": _speed(rows),
        "Runs": _runs(rows),
    }
    built = (_table(title, labels, units, rows) for title, units in contents.items())
    return tuple(table for table in built if table.units)


def split(table: Table, width: int, *, gap: int, label_width: int) -> tuple[Table, ...]:
    """``table`` as one or more that each fit into ``width`` characters, as far as units allow.

    Args:
        table: what to split between units; the labels stand in every part.
        width: characters in a line.
        gap: characters between two columns.
        label_width: the most characters in a line of a label, which may be folded.
    """
    widths = [
        max(len(line) for cell in (heading, *cells) for line in cell.split("\n"))
        for heading, *cells in zip(table.headings, *table.rows, strict=True)
    ]
    widths[: table.labels] = (min(size, label_width) for size in widths[: table.labels])
    parts: list[list[int]] = []  # of each part the positions of its units
    starts = [table.labels + sum(table.units[:position]) for position in range(len(table.units))]

    def columns(part: Sequence[int]) -> list[int]:
        return [
            *range(table.labels),
            *(starts[unit] + k for unit in part for k in range(table.units[unit])),
        ]

    for unit in range(len(table.units)):
        chosen = columns([*parts[-1], unit]) if parts else []
        if chosen and sum(widths[k] + gap for k in chosen) - gap <= width:
            parts[-1].append(unit)
        else:
            parts.append([unit])
    return tuple(
        evolve(
            table,
            headings=tuple(table.headings[k] for k in columns(part)),
            rows=tuple(tuple(row[k] for k in columns(part)) for row in table.rows),
            units=tuple(table.units[unit] for unit in part),
        )
        for part in parts
    )


def figure(value: Estimate | None) -> str:
    """A figure with its interval, as ``127.3 [125.9, 128.8]``: both with the value's decimals."""
    if value is None:
        return EMPTY
    decimals = _decimals(value.value)
    text = plain_figure(value.value)
    if value.low is None or value.high is None:
        return text
    return f"{text} [{value.low:.{decimals}f}, {value.high:.{decimals}f}]"


def plain_figure(value: float) -> str:
    """A value with the digits that its size makes sense of."""
    return f"{value:.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    for least, decimals in ((1000, 0), (10, 1), (1, 2)):
        if abs(value) >= least:
            return decimals
    return 3


def _table(
    title: str, labels: Sequence[_Column], units: Sequence[_Unit], rows: Sequence[SummaryRow]
) -> Table:
    filled = [
        tuple(column for column in unit if any(column.cell(row) != EMPTY for row in rows))
        for unit in units
    ]
    shown = [*labels, *(column for unit in filled for column in unit)]
    return Table(
        title=title,
        headings=tuple(column.heading for column in shown),
        rows=tuple(tuple(column.cell(row) for column in shown) for row in rows),
        labels=len(labels),
        units=tuple(len(unit) for unit in filled if unit),
    )


def _figure(heading: str, value: Callable[[SummaryRow], Estimate | None]) -> _Column:
    return _Column(heading, lambda row: figure(value(row)))


def _plain(
    heading: str,
    value: Callable[[SummaryRow], Estimate | float | None],
    *,
    scale: float = 1.0,
    decimals: int = 0,
) -> _Column:
    """A column of values alone, where an interval would say nothing about the engine."""

    def cell(row: SummaryRow) -> str:
        found = value(row)
        bare = found.value if isinstance(found, Estimate) else found
        return EMPTY if bare is None else f"{bare * scale:.{decimals}f}"

    return _Column(heading, cell)


_LATENCY: tuple[_Unit, ...] = (
    (
        _figure("first token\nmedian", lambda row: row.first_token_ms),
        _figure("p95", lambda row: row.first_token_p95_ms),
        _figure("p99", lambda row: row.first_token_p99_ms),
    ),
    (
        _figure("between tokens\nmedian", lambda row: row.token_gap_ms),
        _plain("p95", lambda row: row.token_gap_p95_ms, decimals=1),
        _plain("p99", lambda row: row.token_gap_p99_ms, decimals=1),
    ),
    (
        _figure("whole answer\nmedian", lambda row: row.total_ms),
        _figure("p95", lambda row: row.total_p95_ms),
        _figure("p99", lambda row: row.total_p99_ms),
    ),
)


def _speed(rows: Sequence[SummaryRow]) -> tuple[_Unit, ...]:
    """The client's own decode rate stands beside the server's where it adds something."""
    differs = any(
        row.decode_tok_s is None
        or (row.rate_disagreement is not None and abs(row.rate_disagreement.value) > DISAGREEMENT)
        for row in rows
        if row.client_decode_tok_s is not None
    )
    client = _figure("decode\nby the client", lambda row: row.client_decode_tok_s)
    return (
        (_figure("prefill", lambda row: row.prefill_tok_s),),
        (_figure("decode", lambda row: row.decode_tok_s),),
        (client,) if differs else (),
        (_figure("all clients", lambda row: row.output_tok_s),),
    )


def _runs(rows: Sequence[SummaryRow]) -> tuple[_Unit, ...]:
    unit = "launches" if all(row.over == "launch" for row in rows) else "blocks"
    columns = (
        _Column(unit, lambda row: _with(row.trials, row.trials_failed, "unfinished")),
        _Column("requests", lambda row: _with(row.requests_ok, row.requests_failed, "failed")),
        _plain("prompt\ntokens", lambda row: row.prompt_tokens),
        _plain("answer\ntokens", lambda row: row.output_tokens),
        _plain("cached\n%", lambda row: row.cached_share, scale=100),
        _plain("drafted\n%", lambda row: row.draft_share, scale=100),
        _plain("accepted\n%", lambda row: row.draft_acceptance, scale=100),
        _plain("load\ns", lambda row: row.load_ms, scale=1e-3, decimals=2),
        _plain("memory\nMiB", lambda row: row.peak_rss_bytes, scale=2**-20),
        _plain("GPU\nMiB", lambda row: row.peak_gpu_bytes, scale=2**-20),
        _plain("energy\nJ/token", lambda row: row.energy_j_per_token, decimals=3),
    )
    return tuple((column,) for column in columns)


def _with(fine: int, others: int, word: str) -> str:
    return f"{fine} ({others} {word})" if others else str(fine)
