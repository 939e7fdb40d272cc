"""Where the bytes of a model lie, and what its tensors say of each layer."""

from __future__ import annotations

import pytest

from velollm_core.models.gguf import TensorInfo
from velollm_core.models.layers import read_layers
from velollm_core.models.spec import LayerShape


def tensor(name, *shape, kind="F32", size=100):
    return TensorInfo(name, shape, kind, 0, size)


def read(*tensors, layers=2, loaded=2):
    return read_layers(tensors, layers, loaded)


def test_every_byte_has_its_place():
    found = read(
        tensor("token_embd.weight", size=1),
        tensor("token_embd_norm.weight", size=2),
        tensor("blk.0.attn_q.weight", size=4),
        tensor("blk.1.ffn_down_exps.weight", 8, 8, 4, size=8),
        tensor("blk.1.ffn_down.weight", 8, 8, size=16),
        tensor("output_norm.weight", size=32),
        tensor("output.weight", size=64),
    )
    assert found.input_bytes == 1
    assert found.layer_bytes == (6, 24)
    assert found.expert_bytes == (0, 8)
    assert found.output_bytes == 96
    assert (found.tied_bytes, found.largest_bytes) == (0, 16)


def test_without_an_output_matrix_the_embeddings_are_both():
    found = read(tensor("token_embd.weight", size=7), tensor("output_norm.weight", size=2))
    assert (found.input_bytes, found.output_bytes, found.tied_bytes) == (7, 9, 7)


def test_layers_that_are_only_there_to_draft_take_nothing():
    found = read(tensor("blk.0.attn_q.weight"), tensor("blk.1.attn_q.weight"), layers=2, loaded=1)
    assert found.layer_bytes == (100, 0)
    assert [shape.attends for shape in found.shapes] == [True, False]


def test_matrices_are_repackable_whose_rows_come_in_eights():
    found = read(
        tensor("blk.0.attn_q.weight", 256, 16, kind="Q4_K", size=10),
        tensor("blk.0.attn_k.weight", 256, 12, kind="Q4_K", size=20),
        tensor("blk.1.ffn_up_exps.weight", 256, 8, 4, kind="Q4_K", size=40),
        tensor("token_embd.weight", 256, 80, kind="Q8_0", size=80),
        tensor("blk.0.attn_norm.weight", 256, kind="F32"),
    )
    assert found.repackable_bytes == {"Q4_K": (10, 40, 0), "Q8_0": (0, 0, 80)}


@pytest.mark.parametrize(
    ("tensors", "shape"),
    [
        ((), LayerShape(attends=False, gated=False)),
        (
            (("attn_q.weight",), ("ffn_gate.weight", 8, 32), ("ffn_down.weight", 32, 8)),
            LayerShape(feed_forward=32),
        ),
        (
            (("attn_qkv.weight",), ("ffn_up.weight", 8, 64), ("ffn_down.weight", 32, 8)),
            LayerShape(fused=True, feed_forward=32),
        ),
        (
            (("attn_q.weight",), ("ffn_up.weight", 8, 32), ("ffn_down.weight", 32, 8)),
            LayerShape(feed_forward=32, gated=False),
        ),
        (
            (
                ("attn_q.weight",),
                ("ffn_gate_exps.weight", 8, 16, 4),
                ("ffn_down_exps.weight", 16, 8, 4),
                ("ffn_down_shexp.weight", 24, 8),
            ),
            LayerShape(experts=16, shared_experts=24),
        ),
        ((("ssm_x.weight",),), LayerShape(attends=False, gated=False, recurrence="mamba")),
        ((("ssm_in.weight",),), LayerShape(attends=False, gated=False, recurrence="mamba2")),
        (
            (("shortconv.conv.weight",),),
            LayerShape(attends=False, gated=False, recurrence="shortconv"),
        ),
        ((("time_mix_w1.weight",),), LayerShape(attends=False, gated=False, recurrence="rwkv")),
    ],
)
def test_tensors_show_what_a_layer_computes(tensors, shape):
    named = [tensor(f"blk.0.{name}", *sizes) for name, *sizes in tensors]
    assert read(*named, layers=1, loaded=1).shapes == (shape,)
