"""What to measure next, and what to go on with: decisions on what was measured, nothing else."""

from __future__ import annotations

import math
import random

from velollm_core.config import Config
from velollm_core.statistics import mean
from velollm_core.tune.evidence import Evidence
from velollm_core.tune.model import Point, Surface
from velollm_core.tune.standing import TOKEN, Standing

FINALISTS = 3
"""Of the final race, beside the leader."""
_DRAWS = 3
"""Draws for each candidate that is wanted: several may come to the same."""
_STARTS = 2
_WORTH = TOKEN / 5
"""So much has to be expected for a search to go on; a model that is not quite right sees less."""
_UNLIKELY = 1.3
"""Standard deviations: what is behind by more is the better one in less than one case of ten."""
_NEAR = 12
"""So many of the fastest are looked at for one that is simpler."""


def drawn(evidence: Evidence, lead: Config, count: int, seed: str) -> tuple[Config, ...]:
    """What is expected to be the fastest, and what is so in draws from the model (Thompson, 1933):
    each is chosen as often as it is likely to be the best. Where these are on the average faster
    than the leader by no more than a token, options come first that never ran in the company of the
    leader's.

    Args:
        evidence: what was measured.
        lead: what leads by now.
        count: how many candidates, at most.
        seed: decides the draws.
    """
    space, draw = evidence.space, random.Random(seed)  # noqa: S311 - no secret
    place = evidence.place(lead)
    if space.refine(place):
        evidence.grown()
    starts = [place, *map(evidence.place, evidence.ranked()[:_STARTS])]
    found: dict[Config, None] = {}

    def look(surface: Surface) -> float:
        """Take what is the fastest on ``surface``; how much faster than the leader."""
        chance = tuple(draw.randrange(len(options)) for options in space.options)
        more = [chance] if evidence.free(chance) else []
        best = space.best(surface, [*starts, *more], evidence.free)
        height = surface(place)
        whole = space.whole(_dared(evidence, surface, best, height))
        if whole is not None and whole != evidence.anchor:
            found[whole] = None
        return surface(best) - height

    look(evidence.model.expected())  # draws alone go too far afield where few trials are left
    gains: list[float] = []
    while len(gains) < _DRAWS * count and (not gains or len(found) < count):
        gains.append(look(evidence.model.drawn(draw)))
    gain = mean(gains)
    if gain <= TOKEN:
        steps = map(space.whole, space.steps(place, evidence.never_together))
        if new := [whole for whole in steps if whole is not None]:
            return tuple(new[:count])
    return tuple(found)[:count] if gain > _WORTH and found.keys() - {lead} else ()


def _dared(evidence: Evidence, surface: Surface, best: Point, height: float) -> Point:
    """A step from ``best`` that may well fail, where so much is to be expected of it above
    ``height`` that the chance is worth a trial.
    """

    def worth(point: Point) -> float:
        return (surface(point) - height) * (1.0 - evidence.risk(point))

    return max([best, *evidence.space.steps(best, lambda step: not evidence.free(step))], key=worth)


def leader(evidence: Evidence) -> Config:
    """What to go on with: the fastest, or what is simpler and as good as that as far as one can
    tell; the anchor, unless another is faster by more than a token.
    """
    ranked, anchor = evidence.ranked(), evidence.anchor
    if not ranked:
        return anchor
    top = ranked[0]
    if anchor in ranked and evidence.against(top, anchor).value <= TOKEN:
        return anchor
    near = [
        whole
        for whole in ranked[:_NEAR]
        if _as_good(evidence.against(whole, top))
        and (whole in (top, anchor) or evidence.against(whole, anchor).value > TOKEN)
    ]
    return min(near, key=lambda whole: (len(whole), ranked.index(whole)))


def finalists(evidence: Evidence, margin: float) -> tuple[Config, ...]:
    """What may still be the best, the leader first; nothing where that is known, or all are alike
    within ``margin``, and what is simpler than the leader was measured.
    """
    lead, anchor = leader(evidence), evidence.anchor
    ranked = [whole for whole in evidence.ranked() if whole != lead][:FINALISTS]
    plain = simpler(evidence, lead)
    against = {whole: evidence.against(whole, lead) for whole in (*ranked, plain)}
    near = {w: a for w, a in against.items() if w != lead and a.value + _UNLIKELY * a.spread > 0}
    decided = all(entry.high < math.log1p(margin) for entry in near.values())
    proven = lead == anchor or evidence.against(lead, anchor).low > 0
    if decided and proven and evidence.of(plain):
        return ()
    return tuple(w for w in dict.fromkeys((lead, *near)) if w != anchor)[: FINALISTS + 1]


def simpler(evidence: Evidence, lead: Config) -> Config:
    """The leader without all that seems to bring nothing: noise has its part in every choice."""
    place = evidence.place(lead)
    while True:
        steps = [
            (against[0], step)
            for axis, option in enumerate(place)
            if option and evidence.free(step := (*place[:axis], 0, *place[axis + 1 :]))
            if _as_good(Standing(*(against := evidence.model.difference(step, place))))
        ]
        if not steps:
            return evidence.space.whole(place) or Config()
        place = max(steps)[1]


def _as_good(against: Standing) -> bool:
    """Whether it is slower by no more than a token, or than half of the doubt; that never counts
    for more than two.
    """
    return -against.value <= max(TOKEN, min(2 * TOKEN, against.spread / 2))
