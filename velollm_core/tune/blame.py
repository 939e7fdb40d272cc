"""Which options make a start fail, and which only in each other's company."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations

from velollm_core.tune.model import Point

Part = tuple[tuple[int, int], ...]
"""One option, or two that are used together: the number of each axis and of its option."""

_ALONE, _TOGETHER = 0.05, 0.01
"""How likely an option does not work at all, and two of them not together, before anything ran."""
_ROUNDS = 8
_MOST = 1e6


def parts(point: Point) -> Iterator[Part]:
    """The options of a point, and all pairs of them."""
    options = tuple(enumerate(point))
    yield from combinations(options, 1)
    yield from combinations(options, 2)


def blamed(ran: Collection[Part], failed: Iterable[Point]) -> dict[Part, float]:
    """How likely each part of what failed is the reason of a failure.

    A point fails where one of its parts does not work; what ran anywhere works. The rest by belief
    propagation (Pearl, Probabilistic Reasoning in Intelligent Systems, 1988, chapter 4): where one
    part explains a failure, the others are no longer suspected.

    Args:
        ran: the parts of all that ran.
        failed: the points that did not.
    """
    suspects = [[part for part in parts(point) if part not in ran] for point in failed]
    messages = [dict.fromkeys(mine, 1.0) for mine in suspects]
    odds = _odds(messages)
    for _ in range(_ROUNDS):
        for message in messages:
            # What the other failures say of each suspect.
            without = {part: odds[part] / said for part, said in message.items()}
            none = -sum(map(math.log1p, without.values()))
            for part, value in without.items():
                other_none = min(1.0 - 1.0 / _MOST, math.exp(none + math.log1p(value)))
                # Half way each time, or they may never agree.
                message[part] = math.sqrt(message[part] / (1.0 - other_none))
        odds = _odds(messages)
    return {part: value / (1.0 + value) for part, value in odds.items()}


def _odds(messages: Iterable[Mapping[Part, float]]) -> dict[Part, float]:
    odds: dict[Part, float] = {}
    for message in messages:
        for part, said in message.items():
            before = _ALONE if len(part) == 1 else _TOGETHER
            odds[part] = odds.get(part, before / (1.0 - before)) * said
    return odds


def risk(blame: Mapping[Part, float], point: Point) -> float:
    """How likely ``point`` fails."""
    return 1.0 - math.prod(1.0 - blame.get(part, 0.0) for part in parts(point))
