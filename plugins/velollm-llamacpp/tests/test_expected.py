"""What llama.cpp makes of a configuration, as arithmetic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from velollm_llamacpp.arguments import settable
from velollm_llamacpp.engines import Engine
from velollm_llamacpp.expected import reported
from velollm_llamacpp.readback import read_endpoints, read_log
from velollm_llamacpp.record import recorded_flags
from velollm_llamacpp.settings import completed

from velollm_core.config import Config

ENGINE = Engine(version="1", build=None, flags=recorded_flags(), gpus=("CUDA0",), cpu_features=())
KNOBS = settable(ENGINE.flags, gpus=True)


@given(
    context=st.integers(1, 10**6),
    slots=st.integers(1, 256),
    unified=st.booleans(),
    batch=st.integers(1, 10**5),
    ubatch=st.integers(1, 10**5),
)
def test_a_cache_never_holds_less_than_was_asked_and_batches_never_more(
    context, slots, unified, batch, ubatch
):
    config = Config(
        {
            "context": context,
            "slots": slots,
            "kv_unified": unified,
            "batch": batch,
            "ubatch": ubatch,
        }
    )
    found = reported(KNOBS, None, config, completed(ENGINE, config))
    assert found["context"] >= context
    assert found["context"] % 256 == 0
    assert unified or found["context"] % slots == 0
    assert found["ubatch"] <= found["batch"] <= min(batch, context)


def test_only_what_was_asked_and_can_be_read_back_is_expected():
    config = Config({"threads": 0, "poll": 1, "ngram_mod_n_max": 5, "gpu_layers": 3})
    assert reported(KNOBS, None, config, completed(ENGINE, config)) == Config({"gpu_layers": 3})


def test_layers_on_a_gpu_are_read_from_the_log():
    log = "0.00.255.055 I load_tensors: offloaded 13/31 layers to GPU\n"
    assert read_log(log) == Config({"gpu_layers": 13})


def test_two_kinds_of_speculation_are_both_named():
    log = (
        "I spec common_specu: adding speculative implementation 'ngram-simple'\n"
        "I spec common_specu: - size_n=3, size_m=8, min_hits=1\n"
        "I spec common_specu: adding speculative implementation 'ngram-map-k4v'\n"
        "I spec common_specu: - size_key=5, size_value=7, key_only=0, min_hits=2\n"
    )
    found = read_log(log)
    assert found["spec_type"] == "ngram-simple,ngram-map-k4v"
    assert (found["ngram_simple_size_m"], found["ngram_map_k4v_size_n"]) == (8, 5)


def test_a_server_with_a_foreign_log_tells_little_and_nothing_is_assumed():
    assert read_endpoints({"total_slots": 2}, None) == Config({"slots": 2})
    assert read_endpoints({}, [{"speculative": False}]) == Config({"spec_type": "none"})
    assert read_endpoints({}, [{"speculative": True}]) == Config()
    used = [{"speculative": True, "params": {"speculative.types": "none,ngram-mod"}}]
    assert read_endpoints({}, used) == Config({"spec_type": "ngram-mod"})
    assert read_endpoints({}, {"error": "disabled"}) == Config()
