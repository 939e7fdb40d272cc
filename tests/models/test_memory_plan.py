"""The memory plan: what llama.cpp allocates, and what holds for every model and every use."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.errors import UsageError
from velollm_core.models.header import model_spec
from velollm_core.models.memory import (
    HOST,
    Placement,
    Use,
    cache_cells,
    layer_devices,
    plan_memory,
    weights_bytes,
)
from velollm_core.models.parts import read_model_files
from velollm_core.models.spec import LayerShape, ModelSpec, RecurrentState
from velollm_core.testing.gguf_files import hybrid, mixture_of_experts, uneven_heads

MIB = 1 << 20
WRITTEN = {"experts": mixture_of_experts, "hybrid": hybrid, "uneven heads": uneven_heads}

Q8 = {"type_k": "q8_0", "type_v": "q8_0"}
# What the embedded engine (xllamacpp 2026.10.11549) wrote into its log, MiB: caches (KV and
# recurrent states) and compute buffer.
ALLOCATED = [
    ("demo", {"context_tokens": 512, "slots": 1}, (11.25, 15.14)),
    ("demo", {"context_tokens": 8192}, (180.0, 22.64)),
    ("demo", {"context_tokens": 20224, "slots": 1}, (444.38, 34.39)),
    ("demo", {"context_tokens": 4096, "slots": 200}, (90.0, 48.80)),
    ("demo", {"context_tokens": 16384, "slots": 2, "unified_kv": False}, (360.0, 22.64)),
    ("demo", {"context_tokens": 2048, "flash_attention": False}, (45.0, 47.51)),
    (
        "demo",
        {"context_tokens": 4096, "flash_attention": False, "ubatch_tokens": 1024},
        (90.0, 175.03),
    ),
    ("demo", {"context_tokens": 2048, "ubatch_tokens": 64, "type_k": "q8_0"}, (34.45, 2.10)),
    ("demo", {"context_tokens": 8192, "type_k": "bf16", "type_v": "f32"}, (270.0, 22.64)),
    (
        "demo",
        {
            "context_tokens": 24576,
            "slots": 3,
            "unified_kv": False,
            "type_k": "q4_0",
            "type_v": "q4_0",
            "draft_tokens": 7,
        },
        (151.88, 22.72),
    ),
    ("Gemma", {"context_tokens": 8192}, (61.50, 28.78)),
    ("Gemma", {"context_tokens": 8192, "slots": 3, "unified_kv": False}, (69.75, 22.07)),
    ("Gemma", {"context_tokens": 8192, "flash_attention": False}, (61.50, 97.27)),
    ("experts", {"context_tokens": 8192}, (16.00, 16.52)),
    ("experts", {"context_tokens": 1024, "slots": 3, "unified_kv": False, **Q8}, (1.59, 9.07)),
    ("experts", {"context_tokens": 4096, "ubatch_tokens": 1024}, (8.00, 25.04)),
    ("hybrid", {"context_tokens": 8192}, (8.89, 15.66)),
    ("hybrid", {"context_tokens": 1024, "slots": 3, "unified_kv": False, **Q8}, (1.47, 8.17)),
    ("hybrid", {"context_tokens": 1024, "flash_attention": False}, (1.89, 13.01)),
    ("uneven heads", {"context_tokens": 1024, **Q8}, (1.13, 9.52)),
    (
        "uneven heads",
        {"context_tokens": 8192, "slots": 3, "unified_kv": False, "flash_attention": False},
        (33.52, 53.62),
    ),
]


@pytest.fixture(scope="module")
def specs(demo_path, gemma_path, tmp_path_factory):
    """The header of each model that the tables name."""
    folder = tmp_path_factory.mktemp("written")
    paths = {"demo": demo_path, "Gemma": gemma_path}
    paths |= {name: write(folder / f"{name}.gguf") for name, write in WRITTEN.items()}
    return {name: model_spec(read_model_files(path)) for name, path in paths.items()}


@pytest.mark.parametrize(("name", "use", "allocated_mib"), ALLOCATED, ids=str)
def test_the_plan_is_what_llama_cpp_allocated(name, use, allocated_mib, specs):
    caches_mib, compute_mib = allocated_mib
    spec, use = specs[name], Use(**use)
    host = plan_memory(spec, use).host
    logits_bytes = 4 * spec.vocabulary_size * use.slots * (1 + use.draft_tokens)
    assert (host.kv_bytes + host.recurrent_bytes) / MIB == pytest.approx(caches_mib, abs=0.0101)
    assert (host.compute_bytes - logits_bytes) / MIB == pytest.approx(compute_mib, abs=0.0051)


def test_of_a_sliding_window_no_more_is_kept_than_can_be_seen(specs):
    gemma = specs["Gemma"]
    assert sum(gemma.sliding_layers) == 15
    assert cache_cells(gemma, Use(context_tokens=8192, slots=1)) == (8192, 1024)
    assert cache_cells(gemma, Use(context_tokens=8192, slots=4)) == (8192, 2560)
    assert cache_cells(gemma, Use(context_tokens=1000, slots=4)) == (1024, 1024)
    assert cache_cells(gemma, Use(context_tokens=8192, swa_full=True)) == (8192, 8192)
    apart = Use(context_tokens=10_000, slots=3, unified_kv=False)
    assert cache_cells(gemma, apart) == (3584, 1024)


def test_a_tied_output_is_held_twice_once_it_lies_on_a_gpu(specs):
    demo, use = specs["demo"], Use(context_tokens=2048)
    whole = plan_memory(demo, use, Placement(gpu_layers=31), gpus=1)
    assert whole.host.weights_bytes == demo.input_bytes
    both = whole.host.weights_bytes + whole.gpus[0].weights_bytes
    assert both == weights_bytes(demo) + demo.tied_bytes
    without = plan_memory(demo, use, Placement(gpu_layers=0), gpus=1)
    assert without.host.weights_bytes == weights_bytes(demo)
    assert without.gpus[0].total_bytes == 0


def test_experts_of_the_first_layers_can_stay_in_main_memory(specs):
    moe, use = specs["experts"], Use(context_tokens=2048)
    on_gpu = plan_memory(moe, use, Placement(gpu_layers=99), gpus=1)
    moved = plan_memory(moe, use, Placement(gpu_layers=99, cpu_expert_layers=3), gpus=1)
    experts = sum(moe.expert_bytes[:3])
    assert experts > 0.9 * sum(moe.layer_bytes[:3])
    assert moved.host.weights_bytes - on_gpu.host.weights_bytes == experts
    assert on_gpu.gpus[0].weights_bytes - moved.gpus[0].weights_bytes == experts


def test_layers_are_dealt_out_by_the_shares_of_the_gpus(specs):
    demo = specs["demo"]
    dealt = layer_devices(demo, Placement(gpu_layers=21, split=(1.0, 3.0)), 2)
    assert dealt[:10] == (HOST,) * 10
    assert [dealt.count(device) for device in (HOST, 0, 1)] == [10, 6, 15]
    assert dealt == tuple(sorted(dealt))
    assert layer_devices(demo, Placement(gpu_layers=99), 0) == (HOST,) * 31


def test_repacked_weights_are_held_beside_the_mapped_file(specs):
    gemma, use = specs["Gemma"], Use(context_tokens=512)
    plain = plan_memory(gemma, use).host.weights_bytes
    repacked = plan_memory(gemma, use, Placement(repacked=frozenset({"Q4_K"}))).host.weights_bytes
    assert repacked - plain == gemma.type_bytes["Q4_K"]
    on_gpu = Placement(repacked=frozenset({"Q4_K"}))
    assert plan_memory(gemma, use, on_gpu, gpus=1).host.weights_bytes == plain


def test_a_header_that_lists_no_layers_still_has_a_plan(specs):
    old = evolve(specs["demo"], layer_bytes=(), expert_bytes=(), shapes=(), sliding_layers=())
    plan = plan_memory(old, Use(context_tokens=512))
    assert plan.host.weights_bytes > 0.6 * weights_bytes(old)


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ({"type_k": "q9"}, "no tensor type 'q9'"),
        ({"type_v": "q4_k"}, "blocks of 256 elements; this model's 3 KV heads of 64"),
    ],
)
def test_what_no_cache_can_be_made_of_is_refused(use, said, specs):
    with pytest.raises(UsageError, match=said):
        plan_memory(specs["demo"], Use(context_tokens=512, **use))


KV_TYPES = ("f32", "f16", "q8_0", "q5_1", "q4_0")


@st.composite
def models(draw):
    """Any mixture of layers: attending, sliding, recurrent, with experts, with nothing."""
    layers = draw(st.integers(1, 6))

    def each(values):
        return tuple(draw(values) for _ in range(layers))

    kv_heads = each(st.sampled_from((0, 1, 2, 4)))
    recurs = each(st.sampled_from((None, None, "mamba", "mamba2", "shortconv", "rwkv")))
    sizes = each(st.integers(0, 1 << 24))
    embedding = draw(st.sampled_from((64, 256, 1000)))
    state = RecurrentState(
        layers=sum(kind is not None for kind in recurs),
        conv_kernel=4,
        inner_size=2 * embedding,
        state_size=16,
        group_count=1,
        time_step_rank=8,
    )
    dim = draw(st.sampled_from((32, 64, 96, 128)))
    tied = draw(st.integers(0, 1 << 20))
    return ModelSpec(
        architecture=draw(st.sampled_from(("llama", "jamba", "gemma3"))),
        parameter_count=1,
        layers=layers,
        embedding_length=embedding,
        context_length=1 << 17,
        heads=tuple(2 * heads or 2 for heads in kv_heads),
        kv_heads=kv_heads,
        head_dims_k=(dim,) * layers,
        head_dims_v=(dim,) * layers,
        sliding_window=512,
        sliding_layers=each(st.booleans()),
        recurrent=state if state.layers else None,
        experts_total=4,
        experts_used=draw(st.integers(1, 4)),
        vocabulary_size=draw(st.sampled_from((256, 32_000))),
        layer_bytes=sizes,
        expert_bytes=tuple(size // 2 for size in sizes),
        largest_bytes=max(sizes) // 4,
        input_bytes=tied + 10,
        output_bytes=tied + 20,
        tied_bytes=tied,
        type_bytes={"F16": 30 + tied + sum(sizes)},
        shapes=tuple(
            LayerShape(
                attends=heads > 0,
                recurrence=kind,
                feed_forward=draw(st.sampled_from((0, 512, 2048))),
                experts=draw(st.sampled_from((0, 0, 256))),
                shared_experts=draw(st.sampled_from((0, 128))),
                gated=draw(st.booleans()),
                fused=draw(st.booleans()),
            )
            for heads, kind in zip(kv_heads, recurs, strict=True)
        ),
    )


USES = st.builds(
    Use,
    context_tokens=st.integers(1, 1 << 15),
    slots=st.integers(1, 8),
    unified_kv=st.booleans(),
    type_k=st.sampled_from(KV_TYPES),
    type_v=st.sampled_from(KV_TYPES),
    ubatch_tokens=st.sampled_from((1, 64, 512, 2048)),
    flash_attention=st.booleans(),
    draft_tokens=st.integers(0, 16),
)
PLACEMENTS = st.builds(
    Placement,
    gpu_layers=st.integers(0, 8),
    cpu_expert_layers=st.integers(0, 6),
    split=st.sampled_from(((), (1.0, 1.0), (3.0, 1.0), (0.0, 1.0))),
)


def parts(plan):
    return (plan.host, *plan.gpus)


@given(models(), USES, PLACEMENTS)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_between_devices_and_nothing_is_negative(spec, use, placement):
    plan = plan_memory(spec, use, placement, gpus=2)
    whole = plan_memory(spec, use)
    for part in parts(plan):
        sizes = (part.weights_bytes, part.kv_bytes, part.recurrent_bytes, part.compute_bytes)
        assert min(sizes) >= 0
        assert part.total_bytes == sum(sizes)
    tied = spec.tied_bytes if layer_devices(spec, placement, 2)[-1] != HOST else 0
    assert sum(part.weights_bytes for part in parts(plan)) == weights_bytes(spec) + tied
    assert whole.host.weights_bytes == weights_bytes(spec)
    for kind in ("kv_bytes", "recurrent_bytes"):
        assert sum(getattr(part, kind) for part in parts(plan)) == getattr(whole.host, kind)


@given(models(), USES, PLACEMENTS, st.integers(1, 1 << 14))
@settings(max_examples=60, deadline=None)
def test_more_context_never_takes_less(spec, use, placement, more):
    longer = evolve(use, context_tokens=use.context_tokens + more)
    small, large = (plan_memory(spec, entry, placement, gpus=2) for entry in (use, longer))
    # Scores and casts lie between other results, where a larger one may find a better place.
    regular = use.flash_attention and "f32" not in {use.type_k, use.type_v}
    for less, most in zip(parts(small), parts(large), strict=True):
        assert less.kv_bytes <= most.kv_bytes
        assert less.total_bytes <= most.total_bytes * (1.0 if regular else 1.1)


@given(models(), USES, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_more_slots_never_hold_less(spec, use, more):
    less = plan_memory(spec, use).host
    most = plan_memory(spec, evolve(use, slots=use.slots + more)).host
    assert less.recurrent_bytes <= most.recurrent_bytes
    if use.unified_kv:
        assert less.kv_bytes <= most.kv_bytes


@given(models(), USES)
@settings(max_examples=40, deadline=None)
def test_a_smaller_type_never_makes_a_larger_cache(spec, use):
    sizes = [
        plan_memory(spec, evolve(use, type_k=kind, type_v=kind)).host.kv_bytes for kind in KV_TYPES
    ]
    assert sizes == sorted(sizes, reverse=True)


@given(models(), USES, st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_one_more_layer_on_a_gpu_is_never_less_there(spec, use, layers):
    fewer, more = (
        plan_memory(spec, use, Placement(gpu_layers=count), gpus=1).gpus[0]
        for count in (layers, layers + 1)
    )
    assert fewer.weights_bytes <= more.weights_bytes
    assert fewer.kv_bytes <= more.kv_bytes
    assert (fewer.compute_bytes > 0) == (layers > 0)


@given(models(), USES, st.integers(2, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_of_two_gpus_that_share_one_more_layer_on_the_first_never_takes_less_there(
    spec, use, layers, data
):
    layers = min(layers, spec.layers + 1)
    first = data.draw(st.integers(1, max(1, layers - 2)))
    fewer, more = (
        plan_memory(
            spec, use, Placement(gpu_layers=layers, split=(count, layers - count)), gpus=2
        ).gpus[0]
        for count in (first, min(first + 1, layers - 1))
    )
    assert fewer.total_bytes <= more.total_bytes
