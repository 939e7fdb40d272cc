"""The layout of a graph: what is used again, and what is not."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from velollm_core.models.arena import Graph, arena_bytes


def chain(sizes, *, in_place=False):
    graph = Graph()
    tensor = graph.input(sizes[0])
    for size in sizes[1:]:
        tensor = graph.node(size, tensor, in_place=in_place)
    return graph


def test_a_result_frees_what_it_was_made_of():
    assert arena_bytes(chain([320, 320, 320, 320, 320]), 1) == [640]


def test_an_operation_in_place_takes_nothing():
    assert arena_bytes(chain([320] * 5, in_place=True), 1) == [320]


def test_what_is_needed_again_stays():
    graph = Graph()
    first = graph.input(320)
    second = graph.node(320, first, in_place=True)
    graph.node(320, first, second)
    assert arena_bytes(graph, 1) == [960]


def test_a_view_keeps_what_it_looks_at_and_cannot_be_overwritten():
    graph = Graph()
    seen = graph.view(graph.input(320))
    graph.node(320, seen, in_place=True)
    assert arena_bytes(graph, 1) == [640]


def test_an_output_is_never_freed():
    graph = Graph()
    kept = graph.node(320, graph.input(32), kept=True)
    graph.node(320, graph.node(320, kept))
    assert arena_bytes(graph, 1) == [32 + 3 * 320]


def test_the_smallest_block_that_is_large_enough_is_taken():
    graph = Graph()
    large, apart, small, end = (graph.input(size) for size in (640, 32, 320, 32))
    graph.store(large)
    graph.store(small)
    graph.node(320)
    graph.node(640, apart, end)
    assert arena_bytes(graph, 1) == [1024]


def test_sizes_are_rounded_up_to_whole_units():
    assert arena_bytes(chain([1, 33]), 1) == [96]


def test_what_another_device_needs_is_copied_there():
    graph = Graph(copies=4)
    given_first = graph.input(320)
    graph.device = 1
    made = graph.node(64, given_first)
    graph.node(64, made, given_first)
    graph.device = 0
    graph.node(32, made)
    # The host's copy of what was made finds room where its input was.
    assert arena_bytes(graph, 2) == [320, 4 * 320 + 64 + 64]


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=30), st.booleans())
def test_a_chain_needs_its_largest_pair_and_no_more_than_everything(sizes, in_place):
    aligned = [-(-size // 32) * 32 for size in sizes]
    pairs = [left + right for left, right in pairwise(aligned)]
    (needed,) = arena_bytes(chain(sizes, in_place=in_place), 1)
    assert max(aligned) <= needed <= sum(aligned)
    if not in_place:
        assert needed >= max(pairs)
