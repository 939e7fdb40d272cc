"""A tune on a planted engine, in a process of its own that somebody may kill.

Called as ``python killed.py JOURNAL LAUNCHES RESULT``: goes on with the run that the journal holds,
or begins one; writes a line to LAUNCHES before each launch, and what came of it to RESULT. Prints a
line when it begins.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

from planted import surroundings, task
from rugged import Space

from velollm_core.documents import to_plain
from velollm_core.experiment.journal import Journal
from velollm_core.testing.clock import VirtualClock
from velollm_core.testing.fakes import FakeBackend, Script
from velollm_core.tune.found import TuneProgress
from velollm_core.tune.keep import tuned

_SPACE = 3
_BUDGET_S = 1200.0
_NOISE = 0.03
_ANSWER_S = 0.002
"""What an answer really takes, so that a kill meets trials, too."""


def main(journal_path: str, launches_path: str, result_path: str) -> None:
    journal = Journal(Path(journal_path))
    runs = journal.runs()
    space, clock = Space.drawn(_SPACE), VirtualClock()
    backend = FakeBackend(
        Script(
            knobs=space.knobs,
            defaults=space.defaults,
            token_ms=lambda config: 1000.0 * math.exp(space.cost(config)),
            crashes=space.crash,
            load_ms=2000.0,
            prompt_ms=1000.0,
            launch_noise=_NOISE,
            repeatable=True,
            clock=clock,
            on_request=lambda _: time.sleep(_ANSWER_S),
        )
    )
    asked = task(backend, metric="decode_tok_s", budget_s=_BUDGET_S, seed=0)
    with Path(launches_path).open("a", encoding="utf-8") as launches:

        def observe(told: TuneProgress) -> None:
            if told.progress is not None and told.progress.event == "launching":
                print(told.progress.arm, told.progress.block, file=launches, flush=True)

        print("begun", flush=True)
        outcome = tuned(
            asked,
            journal=journal,
            clock=clock,
            surroundings=surroundings(),
            observe=observe,
            resumed=runs[0].id if runs else None,
            pause=lambda seconds: clock.advance(1000.0 * seconds),
        )
    Path(result_path).write_text(json.dumps(to_plain(outcome.result)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
