"""Which options a failure is blamed on, held against all that could explain it."""

from __future__ import annotations

from itertools import combinations, product
from math import isclose, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.tune.blame import blamed, parts, risk

POINTS = list(product(range(3), repeat=3))
ALONE, TOGETHER = 0.05, 0.01


def ran(*points):
    return {part for point in points for part in parts(point)}


def enumerated(whole, failed):
    """Over every set of suspects that explains all failures, weighed by how likely it is."""
    suspects = sorted({part for point in failed for part in parts(point)} - whole)
    chances = {part: ALONE if len(part) == 1 else TOGETHER for part in suspects}
    total, sums = 0.0, dict.fromkeys(suspects, 0.0)
    for count in range(len(suspects) + 1):
        for broken in map(set, combinations(suspects, count)):
            if all(broken.intersection(parts(point)) for point in failed):
                weight = prod(c if part in broken else 1 - c for part, c in chances.items())
                total += weight
                for part in broken:
                    sums[part] += weight
    return {part: value / total for part, value in sums.items()}


def test_of_one_failure_each_suspect_has_its_exact_share():
    whole, failed = ran((0, 0, 0), (1, 0, 0), (0, 1, 0)), [(1, 1, 2)]
    found = blamed(whole, failed)
    exact = enumerated(whole, failed)
    assert found.keys() == exact.keys()
    assert all(isclose(found[part], exact[part], rel_tol=1e-2) for part in exact)


def test_what_ran_elsewhere_is_not_blamed_so_that_only_the_company_is():
    whole = ran((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1))
    blame = blamed(whole, [(1, 1, 0)])
    assert risk(blame, (1, 1, 1)) > 0.99
    assert risk(blame, (1, 0, 1)) == risk(blame, (0, 1, 1)) == 0


def test_what_one_thing_explains_is_not_blamed_on_others():
    """Options 0 and 2 of two axes never work together; option 2 of the third was there but once."""
    whole = ran((0, 0, 0), (1, 2, 0), (1, 2, 1), (0, 1, 0), (0, 1, 1), (1, 0, 1))
    once = blamed(whole, [(0, 2, 2)])
    often = blamed(whole, [(0, 2, 0), (0, 2, 1), (0, 2, 2)])
    assert risk(once, (1, 1, 2)) > 0.5
    assert risk(often, (1, 1, 2)) < 0.2
    assert risk(often, (0, 2, 1)) > 0.99


def test_an_option_that_fails_in_whatever_company_is_not_tried_again():
    failed = [(2, 0, 0), (2, 1, 1), (2, 2, 2)]
    blame = blamed(ran((0, 0, 0), (1, 1, 1), (0, 2, 2)), failed)
    assert risk(blame, (2, 1, 0)) > 0.95
    assert risk(blame, (0, 1, 0)) == 0


@given(st.sets(st.sampled_from(POINTS), max_size=20), st.sets(st.sampled_from(POINTS), max_size=8))
def test_a_risk_is_a_probability_and_what_ran_has_none(worked, failed):
    whole = ran(*worked)
    blame = blamed(whole, sorted(failed))
    assert all(0 <= risk(blame, point) <= 1 for point in POINTS)
    assert all(risk(blame, point) == 0 for point in worked)
    for point in failed:
        if set(parts(point)) - whole:
            assert risk(blame, point) > ALONE


@pytest.mark.parametrize("seed", range(4))
def test_of_several_failures_it_is_near_all_explanations_together(seed):
    """Not exact: where two failures share several suspects, it is surer than it should be."""
    whole = ran(*POINTS[: 9 + seed])
    failed = POINTS[20 + seed : 22 + seed]
    found, exact = blamed(whole, failed), enumerated(whole, failed)
    assert all(abs(found[part] - exact[part]) < 0.15 for part in exact)
