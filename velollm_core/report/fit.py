"""What fits, as a document (``velollm.fit/1``) and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.hardware.parsing import GIB
from velollm_core.models.fit import Budget, Candidate, Row, host_bytes, total_bytes
from velollm_core.models.memory import MemoryPlan, Placement, Use
from velollm_core.models.roofline import Prediction, Rates
from velollm_core.report.drawing import drawn, labelled, plain
from velollm_core.report.tables import EMPTY, Table, plain_figure

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

KIND = "fit"
MAJOR = 1


@frozen(kw_only=True)
class Fit:
    """What fits of one model on one machine.

    ``rows`` are uses of it, each with the best placement. ``candidates`` are placements for ``use``
    with what they should bring when a sequence holds ``depth_tokens``; ``front`` is the positions
    of those worth having. ``notes`` say what could not be told, and why.
    """

    model: str
    layers: int
    what_if: str | None = None
    budget: Budget
    rates: Rates
    rows: tuple[Row, ...]
    use: Use
    depth_tokens: int
    candidates: tuple[Candidate, ...]
    front: tuple[int, ...]
    notes: tuple[str, ...] = ()


def to_terminal(fit: Fit) -> RenderableType:
    """``fit`` for a terminal of any width. Nothing in it depends on colour."""
    return _Report(fit)


@frozen
class _Report:
    fit: Fit

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        del console
        yield labelled(_header(self.fit))
        yield from drawn(_uses(self.fit), options.max_width)
        if self.fit.front:
            yield from drawn(_front(self.fit), options.max_width)
            yield ""
            yield plain(_legend(self.fit))
        if self.fit.notes:
            yield ""
            yield labelled([("note", note) for note in self.fit.notes])


def _header(fit: Fit) -> Iterator[tuple[str, str]]:
    yield "model", f"{fit.model}, {fit.layers} layers"
    if fit.what_if:
        yield "what if", fit.what_if
    shared = ", shared with the GPU" if fit.budget.unified else ""
    yield "main memory", f"{_gib(fit.budget.host_bytes)} may be taken{shared}"
    for number, size in enumerate(fit.budget.gpu_bytes):
        usable = _gib(fit.budget.of_gpu(number))
        yield f"GPU {number}", f"{usable} may be taken of {_gib(size)} that are free"
    if fit.rates.host is not None:
        speed = fit.rates.host.bandwidth_bytes_per_s / 1e9
        yield "memory speed", f"{plain_figure(speed)} GB/s"


def _uses(fit: Fit) -> Table:
    rows = [
        (
            f"{row.use.context_tokens // row.use.slots:,}",
            str(row.use.slots),
            _kv_type(row.use),
            _gib(_kv_bytes(row.plan)),
            _gib(total_bytes(row.plan)),
            where(fit, row.placement),
        )
        for row in fit.rows
    ]
    return Table(
        title="What fits",
        headings=("context", "parallel", "KV type", "KV cache", "all of it", "where it fits"),
        rows=tuple(rows),
        labels=3,
        units=(1, 1, 1),
    )


def _front(fit: Fit) -> Table:
    rows = [
        (
            where(fit, entry.placement),
            _speed(entry.decode),
            _speed(entry.prefill),
            _gib(host_bytes(entry.plan)),
            _gib(total_bytes(entry.plan) - host_bytes(entry.plan)),
            f"{entry.largest_context_tokens // fit.use.slots:,}",
            entry.decode.binds if entry.decode else EMPTY,
        )
        for entry in (fit.candidates[position] for position in fit.front)
    ]
    context = f"{fit.use.context_tokens // fit.use.slots:,}"
    each = f" for each of {fit.use.slots} requests" if fit.use.slots > 1 else ""
    return Table(
        title=f"Placements worth having, with a context of {context}{each}",
        headings=(
            "where",
            "decode\ntokens/s",
            "prefill\ntokens/s",
            "main\nmemory",
            "GPU\nmemory",
            "largest\ncontext",
            "what binds\ndecoding",
        ),
        rows=tuple(rows),
        labels=1,
        units=(1, 1, 1, 1, 1, 1),
    )


def _legend(fit: Fit) -> str:
    return (
        f"Speeds are predicted for one sequence that holds {fit.depth_tokens:,} tokens, not "
        "measured: velollm bench measures. Left out is what another placement beats in speed, "
        "context and memory, or nearly equals."
    )


def where(fit: Fit, placement: Placement | None) -> str:
    """In which memory a model lies, in words."""
    if placement is None:
        return "nowhere"
    if not placement.gpu_layers:
        return "main memory"
    layers = min(placement.gpu_layers, fit.layers + 1)
    found = "GPU" if layers > fit.layers else f"GPU: {layers} of {fit.layers + 1}"
    if placement.split:
        shares = "+".join(f"{share:g}" for share in placement.split)
        found = f"GPUs: {shares} of {fit.layers + 1}"
    if placement.cpu_expert_layers:
        found += f", experts of {placement.cpu_expert_layers} in main memory"
    return found


def _kv_type(use: Use) -> str:
    return use.type_k if use.type_k == use.type_v else f"{use.type_k}/{use.type_v}"


def _kv_bytes(plan: MemoryPlan) -> int:
    return sum(part.kv_bytes + part.recurrent_bytes for part in (plan.host, *plan.gpus))


def _speed(prediction: Prediction | None) -> str:
    return EMPTY if prediction is None else plain_figure(prediction.tokens_per_s)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
