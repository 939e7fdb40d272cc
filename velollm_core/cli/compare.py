"""``velollm compare``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve, frozen

from velollm_core.cli.options import global_options, option
from velollm_core.cli.parameters import Percent
from velollm_core.cli.printing import format_option
from velollm_core.cli.state import State
from velollm_core.config import Config
from velollm_core.errors import UsageError
from velollm_core.experiment.measures import METRICS

if TYPE_CHECKING:
    from velollm_core.experiment.apart import Side
    from velollm_core.experiment.spec import BenchmarkResult


@frozen(kw_only=True)
class Wanted:
    """What ``compare`` was asked for beside the files."""

    metric: str | None = None
    arm: str | None = None
    limit: float | None = None
    force: bool = False


@click.command(
    name="compare",
    epilog="Example: velollm compare before.json after.json",
)
@click.argument("results", nargs=-1, required=True, metavar="FILE [FILE]")
@option(
    "--metric",
    type=click.Choice(METRICS),
    help="What two files are compared by.  [default: output_tok_s]",
)
@option("--arm", metavar="NAME", help="Which arm is meant, of a file that holds several.")
@option(
    "--fail-if-slower",
    type=Percent(),
    metavar="PERCENT",
    help="Of one file with two arms: end with 1 where the change is slower by more than that, "
    "with 4 where that stays open.",
)
@option("--force", is_flag=True, help="Compare although model or work differ.")
@format_option
@global_options
@click.pass_obj
def command(state: State, /, results: tuple[str, ...], **options: Any) -> None:
    """Say what a result of 'bench --ab' answers, or hold two results against each other.

    A FILE is a result written with -o, or a run of 'velollm results'. Two files recorded apart hold
    whatever changed between them, so they are distinguishable or not, never faster; the answer
    names the command that would decide.
    """
    wanted = Wanted(
        metric=options["metric"],
        arm=options["arm"],
        limit=options["fail_if_slower"],
        force=options["force"],
    )
    compare(state, results, "json" if state.json else options["format"], wanted)


def compare(state: State, results: tuple[str, ...], form: str, wanted: Wanted) -> None:
    """Print what one result or two say.

    Raises:
        UsageError: they cannot be compared, or an option does not belong to their number.
        VeloError: the change is slower than allowed.
        Unsettled: that stays open.
    """
    if len(results) > 2:
        raise UsageError("compare takes one file or two.", "Compare them pair by pair.")
    loaded = [_load(state, name) for name in results]
    if len(loaded) == 1:
        _one(state, loaded[0], results[0], form, wanted)
    else:
        _two(state, loaded, results, form, wanted)


def _one(state: State, result: BenchmarkResult, name: str, form: str, wanted: Wanted) -> None:
    from velollm_core.cli.printing import print_comparison
    from velollm_core.cli.verdicts import check_limit, doubted, judge

    if wanted.arm is not None or wanted.force:
        raise UsageError("--arm and --force are about two files.", "Leave them out, or name two.")
    if result.question is None:
        raise UsageError(
            f"{name} answers no question: its arms did not take turns to be compared.",
            "Name a second file, or measure both arms: velollm bench --ab KNOB=VALUE",
        )
    check_limit(wanted.limit, result.question.margin)
    if wanted.metric not in {None, result.question.metric}:
        raise UsageError(
            f"{name} was measured to decide by {result.question.metric}.",
            "The metric is named before a run: measure anew with bench --ab and --metric "
            f"{wanted.metric}.",
        )
    result = evolve(result, comparisons=doubted(result))
    print_comparison(state, result, form)
    judge(result.comparisons, wanted.limit)


def _two(
    state: State,
    loaded: list[BenchmarkResult],
    names: tuple[str, ...],
    form: str,
    wanted: Wanted,
) -> None:
    from velollm_core.cli.printing import print_apart
    from velollm_core.experiment.apart import (
        ApartResult,
        compare_apart,
        differences,
        refuse_unlike,
        side,
    )

    first, second = (
        side(result, name, wanted.arm) for result, name in zip(loaded, names, strict=True)
    )
    metric = wanted.metric or next(iter(METRICS))
    decider = _decider(first, second, metric)
    if wanted.limit is not None:
        raise UsageError(
            "--fail-if-slower needs one file that holds both arms: what was recorded apart holds "
            "the drift between them, too.",
            decider,
        )
    if not wanted.force:
        refuse_unlike(first, second)
    answer = ApartResult(
        first=first.result.run,
        second=second.result.run,
        rows=compare_apart(first, second, metric),
        differences=differences(first, second),
        decider=decider,
    )
    for sentence in answer.differences:
        state.output.warn(sentence)
    print_apart(state, answer, form)


def _decider(first: Side, second: Side, metric: str) -> str:
    """How to find out what two results recorded apart cannot tell."""
    before, after = first.arm, second.arm
    if before.engine != after.engine:
        return "Two engines or builds cannot take turns in one run yet: repeat both, in turns."
    if before.digest != after.digest or set(before.config) - set(after.config):
        return "The arms differ in what --ab cannot say: repeat both, in turns."
    changes = Config({k: v for k, v in after.config.items() if before.config.get(k) != v})
    own = Config(
        {k: v for k, v in before.config.items() if before.origins.get(k) in {"--set", "--ab"}}
    )
    work = second.result.workloads
    options = {
        "--set": str(own),
        "--ab": str(changes) or "same",
        "--metric": metric if metric != next(iter(METRICS)) else "",
        "--workload": ",".join(dict.fromkeys(entry.name for entry in work)),
        "--concurrency": ",".join(dict.fromkeys(str(entry.concurrency) for entry in work)),
        "--requests": str(min(entry.requests for entry in work)),
        "--seed": str(second.result.seed) if second.result.seed else "",
    }
    words = ["velollm", "--backend", after.engine.backend, "--model", after.model.name]
    words += ["-X", "url=..."] if after.mode == "attach" else []
    words += ["bench", *(["--baseline"] if before.name == "defaults" else [])]
    words += [word for name, value in options.items() if value for word in (name, value)]
    return f"To decide: {shlex.join(words)}"


def _load(state: State, name: str) -> BenchmarkResult:
    """The result in the file ``name``, or of the run called so."""
    from velollm_core.cli.results import load_run
    from velollm_core.documents import read
    from velollm_core.experiment.benchmark import KIND, MAJOR
    from velollm_core.experiment.comparison import comparisons
    from velollm_core.experiment.spec import BenchmarkResult

    path = Path(name)
    if path.exists() or path.suffix == ".json" or len(path.parts) > 1:
        result = read(path, KIND, MAJOR, BenchmarkResult)
        return evolve(result, comparisons=comparisons(result))
    return load_run(state, name)
