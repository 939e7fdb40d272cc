"""What a configuration is expected to take, on engines with GPUs and without."""

from __future__ import annotations

import pytest
from attrs import evolve
from velollm_llamacpp.allocation import Buffer, Cells, read_allocation
from velollm_llamacpp.footprint import on_gpus, on_the_host, repacked_types, use_of

from velollm_core.hardware.spec import GpuInfo
from velollm_core.models.memory import plan_memory

GIB = 1 << 30
AVX2 = ("AVX2", "FMA", "REPACK")
COMPLETE = {
    "context": 8192,
    "slots": 4,
    "kv_unified": True,
    "batch": 2048,
    "ubatch": 512,
    "cache_type_k": "f16",
    "cache_type_v": "f16",
    "flash_attention": "auto",
    "load_mode": "auto",
    "gpu_layers": -1,
    "spec_type": "none",
    "ngram_simple_size_m": 8,
    "ngram_mod_n_max": 64,
}


def card(number, free_bytes, **more):
    return GpuInfo(
        uuid=f"GPU-{number}",
        vendor="nvidia",
        name="card",
        memory_total_bytes=8 * GIB,
        memory_free_bytes=free_bytes,
        **more,
    )


def test_speculation_asks_for_the_logits_of_its_longest_draft(demo):
    drafting = [COMPLETE | {"spec_type": kind} for kind in ("none", "ngram-simple", "ngram-mod")]
    assert [use_of(demo.spec, config).draft_tokens for config in drafting] == [0, 8, 64]
    sizes = [on_the_host(demo.spec, config, ()).host_bytes for config in drafting]
    assert sizes == sorted(set(sizes))


def test_a_context_that_is_left_to_the_engine_is_the_model_s(demo):
    assert use_of(demo.spec, COMPLETE | {"context": 0}).context_tokens == 8192
    apart = COMPLETE | {"context": 0, "kv_unified": False}
    assert use_of(demo.spec, apart).context_tokens == 4 * 8192


def test_what_is_repacked_depends_on_the_build():
    assert repacked_types(AVX2) == {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}
    assert repacked_types((*AVX2, "AVX512")) > repacked_types(AVX2)
    assert "Q8_0" in repacked_types(("NEON", "DOTPROD", "REPACK"))
    assert repacked_types(("AVX2",)) == repacked_types(("NEON", "REPACK")) == set()


def test_weights_that_are_not_mapped_are_held_once(demo):
    repackable = evolve(demo.spec, repackable_bytes={"Q4_0": (1000,) * 31})
    mapped, read = (
        on_the_host(repackable, COMPLETE | {"load_mode": mode}, AVX2).host_bytes
        for mode in ("auto", "none")
    )
    assert mapped - read == 31_000


def test_a_model_that_fits_lies_on_the_gpu_as_a_whole(demo):
    found = on_gpus(demo.spec, COMPLETE, [card(0, 7 * GIB)])
    assert found.gpu_bytes.keys() == {"GPU-0"}
    assert found.gpu_bytes["GPU-0"] > 200 << 20
    assert found.host_bytes < on_the_host(demo.spec, COMPLETE, ()).host_bytes


def test_layers_that_are_told_are_dealt_out_by_free_memory(demo):
    cards = [card(0, 2 * GIB), card(1, 6 * GIB)]
    found = on_gpus(demo.spec, COMPLETE | {"gpu_layers": 30}, cards)
    assert 2 * found.gpu_bytes["GPU-0"] < found.gpu_bytes["GPU-1"]
    nothing = on_gpus(demo.spec, COMPLETE | {"gpu_layers": 0}, cards)
    assert nothing.host_bytes == on_the_host(demo.spec, COMPLETE, ()).host_bytes
    assert set(nothing.gpu_bytes.values()) == {0}


def test_a_context_left_to_the_engine_shrinks_before_layers_stay_away(demo):
    large = evolve(demo.spec, context_length=1 << 20)
    open_ended = COMPLETE | {"context": 0}
    found = on_gpus(large, open_ended, [card(0, 4 * GIB)])
    assert found.gpu_bytes["GPU-0"] <= 3 * GIB
    asked = on_gpus(large, open_ended | {"context": 1 << 20}, [card(0, 4 * GIB)])
    assert found.host_bytes < 1 * GIB < asked.host_bytes


def test_memory_that_a_gpu_shares_counts_as_main_memory_too(demo):
    own, shared = (
        on_gpus(demo.spec, COMPLETE, [card(0, 7 * GIB, unified_memory=unified)])
        for unified in (False, True)
    )
    assert shared.gpu_bytes == own.gpu_bytes
    assert shared.host_bytes == own.host_bytes + own.gpu_bytes["GPU-0"]


LOG = """\
0.00.414.161 I load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
0.00.414.162 I load_tensors:   CPU_REPACK model buffer size =     1.50 MiB
0.00.418.332 I llama_context:        CPU  output buffer size =     0.75 MiB
0.00.418.480 I llama_kv_cache:        CPU KV buffer size =     6.00 MiB
0.00.418.481 I llama_kv_cache: size =    6.00 MiB (  2048 cells,   3 layers,  4/1 seqs), \
K (f16):    3.00 MiB, V (f16):    3.00 MiB
0.00.418.482 I llama_kv_cache:        CPU KV buffer size =     7.50 MiB
0.00.418.483 I llama_kv_cache: size =    7.50 MiB (   512 cells,  15 layers,  4/1 seqs), \
K (f16):    3.75 MiB, V (f16):    3.75 MiB
0.00.418.484 I llama_memory_recurrent:        CPU RS buffer size =     0.89 MiB
0.00.418.485 I llama_memory_recurrent: size =    0.89 MiB (     4 cells,   8 layers,  4 seqs  \
0 rs_seq), R (f32):    0.14 MiB, S (f32):    0.75 MiB, P (f32):    0.00 MiB
0.00.562.502 I sched_reserve:        CPU compute buffer size =    22.64 MiB
0.00.562.513 I sched_reserve: graph: nodes = 939, splits = 1, input objects = 4
0.00.600.000 I load_tensors:   CPU_Mapped model buffer size =    11.00 MiB
"""


def test_an_engine_s_log_tells_what_it_allocated():
    found = read_allocation(LOG)
    assert found.buffers[1] == Buffer("CPU_REPACK", "model", 1.5)
    assert found.caches == (Cells(2048, 3, 1), Cells(512, 15, 1), Cells(4, 8, 4))
    assert found.mib("model") == pytest.approx(93.6)
    assert found.mib("KV", "RS") == pytest.approx(14.39)
    assert found.mib() == pytest.approx(131.38)


def test_a_start_that_is_not_over_tells_nothing():
    assert read_allocation(LOG[: LOG.index("0.00.562.513")]) is None


def test_a_text_of_the_model_is_no_buffer():
    told = (
        "0.00.000.001 I print_info: general.name = a\nllama_kv_cache: CPU KV buffer size = 9 MiB\n"
    )
    assert read_allocation(told + LOG) == read_allocation(LOG)


@pytest.mark.engine
@pytest.mark.parametrize(
    "knobs",
    [
        {"context": 1000, "slots": 1},
        {"context": 4096, "slots": 3, "kv_unified": False, "cache_type_k": "q8_0"},
        {"context": 2048, "flash_attention": "off", "spec_type": "ngram-mod", "ngram_mod_n_max": 5},
    ],
    ids=str,
)
def test_the_engine_allocates_what_was_planned(backend, embedded, demo, start, knobs):
    session = start(embedded, **knobs)
    told = read_allocation(session._child.log_path.read_text())
    complete = backend.defaults(embedded, demo).config | knobs
    use = use_of(demo.spec, complete)
    planned = plan_memory(demo.spec, use).host
    logits = 4 * demo.spec.vocabulary_size * use.slots * (1 + use.draft_tokens)
    assert planned.weights_bytes / 2**20 == pytest.approx(told.mib("model"), abs=0.006)
    assert planned.kv_bytes / 2**20 == pytest.approx(told.mib("KV"), abs=0.006)
    # The buffer of logits grows to its full size when a draft is first put to the model.
    compute_mib = (planned.compute_bytes - logits) / 2**20
    assert compute_mib == pytest.approx(told.mib("compute"), rel=0.02)


def test_of_a_macs_memory_no_more_is_taken_than_metal_lets_a_program_have(demo):
    size = GIB + (400 << 20)  # a GiB of it is left free, and two thirds of it are less
    discrete = evolve(card(0, size), memory_total_bytes=size)
    shared = evolve(discrete, vendor="apple", unified_memory=True)
    (held,) = on_gpus(demo.spec, COMPLETE, [discrete]).gpu_bytes.values()
    assert held > 0
    (held,) = on_gpus(demo.spec, COMPLETE, [shared]).gpu_bytes.values()
    assert held == 0
