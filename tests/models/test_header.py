"""What a header tells about a model, from real files and from small ones of every kind."""

from __future__ import annotations

import gguf
import pytest

from velollm_core.errors import ModelError
from velollm_core.models.describe import describe
from velollm_core.models.header import model_spec
from velollm_core.models.parts import read_model_files
from velollm_core.models.spec import Model, RecurrentState


def spec_of(path):
    return model_spec(read_model_files(path))


@pytest.fixture
def spec(write_model):
    """The spec of a small model written with these options."""
    return lambda **options: spec_of(write_model(**options))


def test_the_demo_model_is_described(demo_path):
    spec = spec_of(demo_path)
    assert spec.architecture == "llama"
    assert spec.parameter_count == 134_515_008
    assert (spec.layers, spec.embedding_length, spec.feed_forward_length) == (30, 576, 1536)
    assert (spec.heads, spec.kv_heads) == ((9,) * 30, (3,) * 30)
    assert (spec.head_dims_k, spec.head_dims_v) == ((64,) * 30, (64,) * 30)
    assert (spec.context_length, spec.sliding_window) == (8192, None)
    assert spec.vocabulary_size == 49_152
    assert spec.type_bytes == {"Q8_0": 30_081_024, "F32": 140_544, "Q4_1": 66_355_200}
    assert (spec.quantization, spec.chat_template, spec.tensor_count) == ("Q4_1", True, 272)
    assert (spec.file_bytes, spec.split_count, spec.big_endian) == (98_362_432, 1, False)


@pytest.mark.timeout(600)
def test_gemma_is_described(gemma_path):
    spec = spec_of(gemma_path)
    assert (spec.architecture, spec.parameter_count, spec.layers) == ("gemma3", 268_098_176, 18)
    assert (spec.heads, spec.kv_heads) == ((4,) * 18, (1,) * 18)
    assert (spec.head_dims_k, spec.head_dims_v) == ((256,) * 18, (256,) * 18)
    assert (spec.sliding_window, spec.vocabulary_size) == (512, 262_144)
    assert spec.quantization == "Q4_K_M"


def test_heads_that_differ_by_layer_are_read_one_by_one(spec):
    keys = {"llama.attention.head_count": [4, 8], "llama.attention.head_count_kv": [2, 0]}
    found = spec(keys=keys)
    assert (found.heads, found.kv_heads) == ((4, 8), (2, 0))
    assert found.head_dims_k == (8, 8)  # llama.cpp goes by the heads of the first layer


def test_without_kv_heads_every_head_has_its_own(spec):
    assert spec().kv_heads == (4, 4)


def test_head_sizes_that_are_told_win_over_embedding_by_heads(spec):
    keys = {"llama.attention.key_length": 24, "llama.attention.value_length": 12}
    found = spec(keys=keys)
    assert (found.head_dims_k, found.head_dims_v) == ((24, 24), (12, 12))


GEMMA_4 = {
    "gemma4.block_count": 4,
    "gemma4.attention.key_length": 512,
    "gemma4.attention.key_length_swa": 256,
    "gemma4.attention.sliding_window": 1024,
}


def test_layers_with_a_sliding_window_may_have_heads_of_another_size(spec):
    pattern = {"gemma4.attention.sliding_window_pattern": [True, True, False, True]}
    found = spec(arch="gemma4", keys=GEMMA_4 | pattern)
    assert found.head_dims_k == (256, 256, 512, 256)
    assert found.sliding_window == 1024


def test_where_the_sliding_layers_are_not_told_the_larger_head_size_is_assumed(spec):
    assert spec(arch="gemma4", keys=GEMMA_4).head_dims_k == (512,) * 4


def test_layers_that_share_a_cache_keep_none(spec):
    keys = GEMMA_4 | {"gemma4.attention.shared_kv_layers": 3}
    assert spec(arch="gemma4", keys=keys).kv_heads == (4, 0, 0, 0)


def test_experts_are_counted(spec):
    found = spec(
        keys={"llama.expert_count": 8, "llama.expert_used_count": 2},
        tensors={"blk.0.ffn_up_exps.weight": (8, 4, 32)},
    )
    assert (found.experts_total, found.experts_used, found.parameter_count) == (8, 2, 1024)


def test_mamba_has_recurrent_state_and_no_cache(spec):
    found = spec(
        arch="mamba",
        keys={
            "mamba.attention.head_count": 0,
            "mamba.ssm.conv_kernel": 4,
            "mamba.ssm.inner_size": 64,
            "mamba.ssm.state_size": 16,
            "mamba.ssm.time_step_rank": 2,
        },
        tensors={f"blk.{layer}.ssm_a": (64, 16) for layer in range(2)},
    )
    assert found.recurrent == RecurrentState(
        layers=2, conv_kernel=4, inner_size=64, state_size=16, time_step_rank=2
    )
    assert found.kv_heads == (0, 0)


def test_a_hybrid_keeps_a_cache_only_in_layers_that_attend(spec):
    tensors = {
        "blk.0.ssm_a": (8,),
        "blk.0.attn_qkv.weight": (8, 32),
        "blk.1.attn_k.weight": (8, 32),
        "blk.2.ssm_a": (8,),
        "blk.2.attn_k.weight": (8, 32),
    }
    keys = {"qwen3next.block_count": 3, "qwen3next.ssm.conv_kernel": 4}
    found = spec(arch="qwen3next", keys=keys, tensors=tensors)
    assert found.kv_heads == (0, 4, 4)
    assert found.recurrent.layers == 2


def test_rwkv_and_short_convolutions_are_put_in_the_same_terms(spec):
    rwkv = spec(arch="rwkv6", keys={"rwkv6.wkv.head_size": 16, "rwkv6.token_shift_count": 2})
    assert rwkv.recurrent == RecurrentState(layers=2, conv_kernel=3, inner_size=32, state_size=16)
    lfm2 = spec(arch="lfm2", keys={"lfm2.shortconv.l_cache": 3})
    assert lfm2.recurrent == RecurrentState(layers=2, conv_kernel=3, inner_size=32, state_size=0)


def test_a_file_type_that_was_guessed_is_named_all_the_same(spec):
    assert spec(keys={"general.file_type": 1024 + 15}).quantization == "Q4_K_M"


def test_without_a_file_type_the_prevailing_tensor_type_is_named(spec):
    assert spec().quantization == "F32"


def test_a_chat_template_is_noticed(spec):
    assert not spec().chat_template
    assert spec(keys={"tokenizer.chat_template": "{{ messages }}"}).chat_template


def test_big_endian_is_noticed_and_read(spec):
    found = spec(endianess=gguf.GGUFEndian.BIG)
    assert found.big_endian
    assert (found.layers, found.type_bytes) == (2, {"F32": 1024})


VOCABULARY = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b", "ab"],
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.add_eos_token": False,
    "tokenizer.ggml.eos_token_id": 2,
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"general.name": "a finetune"}, True),
        ({"tokenizer.ggml.eos_token_id": 0}, True),  # never added, so it does not matter
        ({"llama.vocab_size": 4}, True),
        ({"tokenizer.ggml.bos_token_id": 0}, False),
        ({"tokenizer.ggml.add_eos_token": True}, False),
        ({"tokenizer.ggml.model": "llama"}, False),
        ({"tokenizer.ggml.tokens": ["a", "ba", "b"]}, False),
        ({"tokenizer.ggml.tokens": ["a", "b", "ab", "c"]}, False),
    ],
)
def test_the_vocabulary_fingerprint_tells_who_may_draft_for_whom(change, same, write_model):
    one = spec_of(write_model("one.gguf", keys=VOCABULARY))
    other = spec_of(write_model("other.gguf", keys=VOCABULARY | change))
    assert (one.vocabulary_fingerprint == other.vocabulary_fingerprint) == same


def test_without_a_vocabulary_there_is_no_fingerprint_of_it(spec):
    found = spec()
    assert (found.vocabulary_size, found.vocabulary_fingerprint) == (None, None)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"llama.block_count": None}, "has no key llama.block_count"),
        ({"llama.block_count": 0}, "llama.block_count is 0"),
        ({"llama.block_count": 2**32 - 1}, "llama.block_count is 4294967295"),
        ({"llama.context_length": None}, "has no key llama.context_length"),
        ({"llama.context_length": 0}, "llama.context_length is 0"),
        ({"llama.embedding_length": 0}, "llama.embedding_length is 0"),
        ({"llama.embedding_length": "many"}, "llama.embedding_length is 'many'"),
        ({"llama.attention.head_count": 4.5}, "llama.attention.head_count is 4.5"),
        ({"llama.attention.head_count_kv": [1, 1, 1]}, "is '3 values for 2 layers'"),
        ({"llama.attention.head_count_kv": [1, -1]}, "llama.attention.head_count_kv is -1"),
        (
            {"llama.expert_count": 8, "llama.expert_used_count": 9},
            "llama.expert_used_count is '9 of 8 experts'",
        ),
        ({"llama.expert_count": 8}, "llama.expert_used_count is '0 of 8 experts'"),
        ({"llama.expert_used_count": 2}, "llama.expert_used_count is '2 of 0 experts'"),
        ({"llama.expert_count": 5000}, "llama.expert_count is 5000"),
        ({"llama.nextn_predict_layers": 2}, "llama.nextn_predict_layers is 2"),
        ({"llama.attention.shared_kv_layers": 3}, "llama.attention.shared_kv_layers is 3"),
        ({"general.type": "adapter"}, "no model: its type is 'adapter'"),
        ({"general.type": "mmproj"}, "is a multimodal projector"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused_by_key(keys, reason, write_model):
    path = write_model(keys=keys)
    with pytest.raises(ModelError) as refused:
        spec_of(path)
    assert str(path) in refused.value.message
    assert reason in refused.value.message
    assert refused.value.hint


def test_every_model_can_be_put_in_words(spec, write_model):
    hybrid = spec(
        arch="jamba",
        keys={
            "jamba.attention.head_count_kv": [2, 0],
            "jamba.attention.sliding_window": 64,
            "jamba.expert_count": 4,
            "jamba.expert_used_count": 1,
            "jamba.ssm.conv_kernel": 4,
            "jamba.ssm.inner_size": 64,
            "jamba.ssm.state_size": 16,
            **VOCABULARY,
        },
        endianess=gguf.GGUFEndian.BIG,
    )
    words = dict(describe(Model(reference="x", served_name="x:latest", spec=hybrid)))
    assert words["served as"] == "x:latest"
    assert words["attention"] == "4 heads, 0 to 2 KV heads of 8 (keys) and 8 (values) elements"
    assert words["experts"] == "1 of 4 used for a token"
    assert words["sliding window"] == "64 tokens, which llama.cpp does not use"
    assert words["byte order"] == "big-endian"
    assert words["vocabulary"].startswith("3 tokens, fingerprint ")
    assert "file" not in words


def test_a_model_that_only_a_server_knows_can_be_put_in_words():
    assert describe(Model(reference="x", served_name="x")) == [
        ("reference", "x"),
        ("served as", "x"),
    ]
