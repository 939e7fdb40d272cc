"""A model on a llama.cpp of one's choice, and how fast it reads and writes by its own clock."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from velollm_llamacpp.backend import LlamaCpp

from velollm_core.backends.contract import Finish, Installation, Request, Session
from velollm_core.backends.processes import Place
from velollm_core.config import Config, Settings
from velollm_core.models.header import model_spec
from velollm_core.models.parts import read_model_files
from velollm_core.models.spec import Model

_START_S = 120.0
_ORDINARY = 300
"""Below are marks and single bytes, in every vocabulary that is used here."""
_LEAST_ANSWER = 8


@frozen(kw_only=True)
class Speeds:
    """Medians for prompts of one length: tokens a second, and how deep the answers began."""

    prompt_tokens: int
    prefill_tok_s: float
    decode_tok_s: float
    answer_tokens: float


def engine(named: str | None = None) -> Installation:
    """The ``llama-server`` at ``named``, or the embedded engine."""
    options = {"server": named} if named else {"engine": "embedded"}
    return LlamaCpp().probe(options, os.environ)[0]


@contextmanager
def started(
    installation: Installation, model: Model, config: Config
) -> Iterator[tuple[Session, Path]]:
    """``model`` on that engine: a session, and the engine's log, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(
            directory=Path(folder),
            log_path=Path(folder) / "engine.log",
            environ=os.environ,
            deadline=time.monotonic() + _START_S,
        )
        settings = Settings(config=config)
        with LlamaCpp().launch(installation, model, settings, place) as session:
            yield session, place.log_path


def speeds(
    installation: Installation,
    path: Path,
    threads: int,
    lengths: Sequence[int],
    *,
    answer_tokens: int = 32,
    rounds: int = 3,
) -> list[Speeds]:
    """Start the engine with one slot, and send it prompts of random tokens, none twice.

    Args:
        installation: the engine.
        path: the model.
        threads: for prompts and answers.
        lengths: tokens of the prompts.
        answer_tokens: of each answer at most.
        rounds: requests of each length; the lengths take turns.
    """
    spec = model_spec(read_model_files(path))
    model = Model(reference=path.name, path=path, spec=spec)
    config = Config(
        {
            "threads": threads,
            "threads_batch": threads,
            "slots": 1,
            "context": max(lengths) + answer_tokens + 256,
        }
    )
    complete = LlamaCpp().defaults(installation, model).config | config
    drawn = random.Random(0)
    found: dict[int, list[tuple[float, float, int]]] = {length: [] for length in lengths}
    with started(installation, model, complete) as (session, _):
        for warm in (True, *(False,) * rounds):
            for length in lengths[:1] if warm else lengths:
                words = spec.vocabulary_size or 0
                prompt = tuple(drawn.randrange(_ORDINARY, words) for _ in range(length))
                one = _speeds(session, prompt, answer_tokens)
                if one is not None and not warm:
                    found[length].append(one)
    return [
        Speeds(
            prompt_tokens=length,
            prefill_tok_s=statistics.median(one[0] for one in all_of_it),
            decode_tok_s=statistics.median(one[1] for one in all_of_it),
            answer_tokens=statistics.mean(one[2] for one in all_of_it),
        )
        for length, all_of_it in found.items()
        if all_of_it
    ]


def _speeds(
    session: Session, prompt: tuple[int, ...], answer_tokens: int
) -> tuple[float, float, int] | None:
    """Prefill, decode and tokens; nothing of an answer too short to have a speed."""
    items = session.generate(Request(prompt=prompt, max_tokens=answer_tokens))
    end = next(item for item in items if isinstance(item, Finish))
    assert end.timings is not None
    assert end.prompt_tokens is not None
    assert end.output_tokens is not None
    if end.output_tokens < _LEAST_ANSWER:
        return None
    read = end.prompt_tokens - (end.cached_tokens or 0)
    return (
        1000 * read / end.timings.prompt_ms,
        1000 * (end.output_tokens - 1) / end.timings.predicted_ms,
        end.output_tokens,
    )
