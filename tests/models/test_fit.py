"""What fits: never more than may be taken, never less with more memory, and no bad bargains."""

from __future__ import annotations

from itertools import product

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.models.fit import (
    Budget,
    best_placement,
    candidates,
    fits,
    front,
    host_bytes,
    largest_context,
    place,
    placements,
    table,
    total_bytes,
)
from velollm_core.models.memory import Placement, Use, plan_memory, process_bytes
from velollm_core.models.roofline import Arithmetic, DeviceRates, Rate, Rates
from velollm_core.models.spec import ModelSpec

MIB = 1 << 20
ENGINE = process_bytes(
    ModelSpec(architecture="", parameter_count=0, layers=1, embedding_length=1, context_length=1)
)
USE = Use(context_tokens=4096, slots=1, unified_kv=False)
FAST = Arithmetic(vector={"*": Rate(1e12)}, matrix={"*": Rate(1e12)})
HOST = DeviceRates(bandwidth_bytes_per_s=2e10, weights=FAST)
GPU = DeviceRates(bandwidth_bytes_per_s=5e11, weights=FAST)

gpus = st.lists(st.integers(0, 120), max_size=2)
uses = st.builds(
    lambda context, slots, kind: Use(
        context_tokens=context * slots, slots=slots, unified_kv=False, type_k=kind, type_v=kind
    ),
    st.sampled_from([256, 4096, 16384]),
    st.sampled_from([1, 4]),
    st.sampled_from(["f16", "q8_0"]),
)
few = settings(max_examples=15, deadline=None)


def budget(host_mib, gpus_mib=(), **more):
    return Budget(
        host_bytes=ENGINE + host_mib * MIB,
        gpu_bytes=tuple(size * MIB for size in gpus_mib),
        **{"margin_bytes": 8 * MIB, **more},
    )


def plan(spec, use, room, placement):
    return plan_memory(spec, use, placement, gpus=len(room.gpu_bytes))


def rates(room):
    return Rates(host=HOST, gpus=(GPU,) * len(room.gpu_bytes), link_bytes_per_s=1e10)


@few
@given(use=uses, host=st.integers(0, 120), gpus=gpus, experts=st.booleans(), unified=st.booleans())
def test_no_placement_takes_more_than_may_be_taken(
    *, small_spec, use, host, gpus, experts, unified
):
    spec = small_spec(experts=8 if experts else 0)
    room = budget(host, gpus, unified=unified)
    for placement in placements(spec, use, room):
        found = plan(spec, use, room, placement)
        for part, size in zip(found.gpus, room.gpu_bytes, strict=True):
            assert part.total_bytes <= max(0, size - room.margin_bytes)
        taken = total_bytes(found) if unified else host_bytes(found)
        assert taken <= room.host_bytes


@few
@given(
    use=uses,
    host=st.integers(0, 120),
    gpus=gpus,
    more=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)),
    experts=st.booleans(),
)
def test_more_memory_never_gives_less_on_gpus_or_a_smaller_context(
    *, small_spec, use, host, gpus, more, experts
):
    spec = small_spec(experts=8 if experts else 0)
    small = budget(host, gpus)
    large = budget(host + more[2], [size + more[k] for k, size in enumerate(gpus)])
    before, after = (best_placement(spec, use, room) for room in (small, large))
    if before is not None:
        assert after is not None
        assert after.gpu_layers >= before.gpu_layers
        if after.gpu_layers == before.gpu_layers:
            assert after.cpu_expert_layers <= before.cpu_expert_layers
        assert largest_context(spec, use, large, before) >= largest_context(
            spec, use, small, before
        )
    assert largest_context(spec, use, large) >= largest_context(spec, use, small)


@few
@given(
    use=uses,
    rooms=st.lists(st.none() | st.integers(0, 120), min_size=2, max_size=3),
    more=st.integers(1, 80),
    experts=st.booleans(),
)
def test_on_unequal_gpus_whatever_fits_in_any_split_is_found_and_more_memory_loses_no_layer(
    *, small_spec, use, rooms, more, experts
):
    """``None``: room for exactly what one GPU takes that holds everything."""
    spec = small_spec(experts=8 if experts else 0)
    alone = plan_memory(spec, use, Placement(gpu_layers=5), gpus=1).gpus[0].total_bytes
    sizes = [alone if size is None else size * MIB for size in rooms]
    small = Budget(host_bytes=1 << 40, gpu_bytes=tuple(sizes), margin_bytes=0)
    for layers in range(1, spec.layers + 2):
        ways = (way for way in product(range(layers + 1), repeat=len(sizes)) if sum(way) == layers)
        splits = (Placement(gpu_layers=layers, split=tuple(map(float, way))) for way in ways)
        possible = any(fits(plan(spec, use, small, way), small) for way in splits)
        assert (place(spec, use, small, gpu_layers=layers) is not None) == possible
    before = best_placement(spec, use, small)
    for position in range(len(sizes)):
        larger = [size + more * MIB * (k == position) for k, size in enumerate(sizes)]
        large = evolve(small, gpu_bytes=tuple(larger))
        after = best_placement(spec, use, large)
        assert after.gpu_layers >= before.gpu_layers
        assert fits(plan(spec, use, large, after), large)
        assert largest_context(spec, use, large, before) >= largest_context(
            spec, use, small, before
        )


@pytest.mark.parametrize("second_mib", [0, 20, 30, 60])
def test_a_second_gpu_that_helps_little_costs_no_layer_on_the_first(small_spec, second_mib):
    spec, use = small_spec(), evolve(USE, context_tokens=16384)
    alone = plan_memory(spec, use, Placement(gpu_layers=5), gpus=1).gpus[0].total_bytes
    room = Budget(host_bytes=1 << 40, gpu_bytes=(alone, second_mib * MIB), margin_bytes=0)
    assert best_placement(spec, use, room).gpu_layers == 5


def test_a_model_whose_layers_are_not_told_apart_is_placed_by_their_mean(small_spec):
    spec = small_spec(layer_bytes=(), expert_bytes=(), shapes=(), type_bytes={"Q8_0": 32 * MIB})
    room = budget(100, [45])
    found = candidates(spec, USE, room, rates(room))
    assert 0 < found[0].placement.gpu_layers < 5
    assert found[0].decode is None
    assert largest_context(spec, USE, room) > 4096


@few
@given(use=uses, host=st.integers(0, 120), gpus=gpus)
def test_the_largest_context_fits_and_the_next_one_does_not(small_spec, use, host, gpus):
    spec = small_spec()
    room = budget(host, gpus)
    found = largest_context(spec, use, room)
    if found:
        assert best_placement(spec, evolve(use, context_tokens=found), room) is not None
    if found < spec.context_length * use.slots:
        wider = evolve(use, context_tokens=found + 256 * use.slots)
        assert best_placement(spec, wider, room) is None


@few
@given(host=st.integers(0, 120), gpus=gpus, experts=st.booleans())
def test_nothing_on_the_front_is_beaten_and_whatever_is_left_out_has_something_alike(
    small_spec, host, gpus, experts
):
    spec = small_spec(experts=8 if experts else 0)
    room = budget(host, gpus)
    found = candidates(spec, USE, room, rates(room))
    kept = [found[position] for position in front(found)]

    def worth(entry):
        return entry.decode.tokens_per_s, entry.largest_context_tokens, -total_bytes(entry.plan)

    for entry in kept:
        assert not any(
            worth(other) != worth(entry)
            and all(a >= b for a, b in zip(worth(other), worth(entry), strict=True))
            for other in found
        )
    for entry in found:
        speed, context, memory = worth(entry)
        assert any(
            worth(other)[0] >= speed
            and worth(other)[1] >= 0.75 * context
            and worth(other)[2] >= 1.25 * memory
            for other in kept
        )
    assert [worth(entry)[0] for entry in kept] == sorted(
        (worth(entry)[0] for entry in kept), reverse=True
    )


def test_with_room_enough_everything_lies_on_the_gpu(small_spec):
    room = budget(100, [200])
    assert best_placement(small_spec(), USE, room) == Placement(gpu_layers=5)
    assert best_placement(small_spec(experts=8), USE, room) == Placement(gpu_layers=5)


def test_experts_go_to_main_memory_before_layers_do(small_spec):
    room = budget(100, [45])
    found = best_placement(small_spec(experts=8), USE, room)
    assert found.gpu_layers == 5
    assert 0 < found.cpu_expert_layers < 4
    assert 0 < best_placement(small_spec(), USE, room).gpu_layers < 5


def test_gpus_share_the_layers_by_their_room_and_are_filled_where_that_does_not_fit(small_spec):
    spec = small_spec()
    found = best_placement(spec, USE, budget(100, [200, 104]))
    assert found == Placement(gpu_layers=5, split=(4.0, 1.0))
    assert place(spec, USE, budget(100, [200, 0]), gpu_layers=5).split == (5.0, 0.0)
    assert place(spec, USE, budget(100, [0, 200]), gpu_layers=5).split == (0.0, 5.0)


def test_without_a_gpu_or_without_room_there_is_nothing_to_choose(small_spec):
    spec = small_spec()
    assert list(placements(spec, USE, budget(100))) == [Placement()]
    assert place(spec, USE, budget(100), gpu_layers=1) is None
    assert best_placement(spec, USE, budget(10)) is None
    assert largest_context(spec, USE, budget(10)) == 0
    (row,) = table(spec, [USE], budget(10))
    assert row.placement is None
    assert host_bytes(row.plan) > budget(10).host_bytes
    assert not fits(row.plan, budget(10))


def test_shared_memory_is_counted_once(small_spec):
    spec = small_spec()
    needed = total_bytes(plan_memory(spec, USE, Placement(gpu_layers=5), gpus=1))
    enough = Budget(host_bytes=needed, gpu_bytes=(1 << 30,), margin_bytes=0, unified=True)
    assert best_placement(spec, USE, enough) == Placement(gpu_layers=5)
    scarce = evolve(enough, host_bytes=needed - 1)
    assert best_placement(spec, USE, scarce) != Placement(gpu_layers=5)


def test_a_slot_never_gets_more_than_the_model_s_own_context(small_spec):
    room = budget(1000)
    assert largest_context(small_spec(), USE, room) == 16384
    four = evolve(USE, slots=4)
    assert largest_context(small_spec(), four, room) == 4 * 16384


def test_of_many_candidates_the_first_the_last_and_some_between_are_taken(small_spec):
    spec = small_spec(layers=12)
    room = budget(200, [400])
    every = candidates(spec, USE, room, rates(room))
    some = candidates(spec, USE, room, rates(room), at_most=4)
    assert len(every) == 14
    assert [entry.placement.gpu_layers for entry in some] == [13, 9, 4, 0]


@pytest.mark.parametrize("known", [True, False])
def test_where_speeds_are_not_known_more_on_the_gpu_stands_for_faster(small_spec, known):
    room = budget(200, [200])
    speeds = rates(room) if known else Rates(host=HOST, gpus=(None,))
    found = candidates(small_spec(), USE, room, speeds)
    assert found[front(found)[0]].placement == Placement(gpu_layers=5)
