"""The memory estimate, against figures that llama.cpp gave."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from velollm_core.errors import UsageError
from velollm_core.models.header import model_spec
from velollm_core.models.memory import kv_cache_bytes, recurrent_bytes, weights_bytes
from velollm_core.models.parts import read_model_files
from velollm_core.models.spec import ModelSpec, RecurrentState


def spec(**fields):
    given = {
        "architecture": "llama",
        "parameter_count": 0,
        "layers": 2,
        "embedding_length": 64,
        "context_length": 128,
        "kv_heads": (2, 2),
        "head_dims_k": (32, 32),
        "head_dims_v": (32, 32),
    }
    return ModelSpec(**{**given, **fields})


def test_weights_of_the_demo_model_are_its_tensors(demo_path):
    found = model_spec(read_model_files(demo_path))
    assert weights_bytes(found) == 96_576_768
    assert weights_bytes(found) < found.file_bytes


def test_the_cache_is_context_by_kv_heads_by_head_size_by_layer():
    assert kv_cache_bytes(spec(), 100) == 2 * 100 * 2 * (32 + 32) * 2


def test_quantized_caches_count_whole_blocks():
    assert kv_cache_bytes(spec(), 100, "q8_0", "q4_0") == 2 * 100 * 2 * (34 + 18)


def test_layers_differ():
    mixed = spec(kv_heads=(2, 0), head_dims_k=(32, 999), head_dims_v=(64, 999))
    assert kv_cache_bytes(mixed, 10) == 10 * 2 * (32 + 64) * 2


def test_a_cache_type_whose_blocks_are_not_filled_is_refused():
    odd = spec(kv_heads=(1, 1), head_dims_k=(80, 80))
    with pytest.raises(UsageError, match="blocks of 32 elements; this model's 1 KV heads of 80"):
        kv_cache_bytes(odd, 10, "q8_0")


def test_a_cache_type_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="no tensor type 'q9'"):
        kv_cache_bytes(spec(), 10, "q9")


def test_recurrent_state_does_not_grow_with_the_context():
    # mamba-130m: 24 layers, 1536 inner channels, 16 states, kernels of 4; float32.
    state = RecurrentState(layers=24, conv_kernel=4, inner_size=1536, state_size=16)
    mamba = spec(kv_heads=(0, 0), recurrent=state)
    assert recurrent_bytes(mamba, 1) == 24 * (3 * 1536 + 16 * 1536) * 4
    assert recurrent_bytes(mamba, 4) == 4 * recurrent_bytes(mamba, 1)
    assert kv_cache_bytes(mamba, 10_000) == 0


def test_mamba_2_convolves_its_groups_too():
    state = RecurrentState(layers=1, conv_kernel=4, inner_size=64, state_size=16, group_count=2)
    assert recurrent_bytes(spec(recurrent=state), 1) == (3 * (64 + 2 * 2 * 16) + 64 * 16) * 4


def test_a_model_that_only_attends_has_no_recurrent_state():
    assert recurrent_bytes(spec(), 8) == 0


ENGINE = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx, params.verbosity = sys.argv[1], 0, 2048, 4
params.cache_type_k = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + sys.argv[2])
params.cache_type_v = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + sys.argv[3])
params.swa_full = True
xllamacpp.Server(params)
"""


def engine_says(path, type_k, type_v):
    """MiB of weights and of KV cache that llama.cpp allocates for 2,048 tokens, from its log."""
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(path), type_k, type_v],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    log = ""
    with engine, engine.stderr:
        for line in engine.stderr:
            log += line
            if "compute buffer size" in line:
                break
        engine.kill()
    sizes = [
        [float(size) for size in re.findall(rf"{label} buffer size =\s*([\d.]+) MiB", log)]
        for label in ("CPU_Mapped model", "CPU KV")
    ]
    assert all(sizes), log
    return sum(sizes[0]), sum(sizes[1])


@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("model", "type_k", "type_v"),
    [("demo", "F16", "F16"), ("demo", "Q8_0", "Q4_0"), ("gemma", "F16", "F16")],
)
def test_the_estimate_is_what_llama_cpp_allocates(model, type_k, type_v, request):
    path = request.getfixturevalue(f"{model}_path")
    weights_mib, cache_mib = engine_says(path, type_k, type_v)
    found = model_spec(read_model_files(path))
    assert weights_bytes(found) / 2**20 == pytest.approx(weights_mib, abs=0.01)
    assert kv_cache_bytes(found, 2048, type_k, type_v) / 2**20 == pytest.approx(cache_mib, abs=0.02)
