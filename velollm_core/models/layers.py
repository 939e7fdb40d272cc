"""What the tensors of a model say of each of its layers: bytes, and what is computed there.

Names of tensors: llama.cpp, ``llama-arch.cpp``, where it also stands which belong to the input,
which to a layer and which to the output.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

from velollm_core.models.gguf import TensorInfo
from velollm_core.models.spec import LayerShape, Recurrence

_EMBEDDINGS = "token_embd.weight"
_OUTPUT = "output.weight"
_INPUTS = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")
_FIRST_LAYER = "token_embd_norm."
_LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(.+)")
_EXPERTS = re.compile(r"ffn_\w+_exps\.weight$")
_REPACKED = frozenset({"Q2_K", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"})
_REPACKED_ROWS = 8
_MATRIX_DIMENSIONS = (2, 3)


@frozen(kw_only=True)
class Layers:
    """Bytes by layer and, for ``repackable_bytes``, after the layers those of the output.

    The terms are those of :class:`~velollm_core.models.spec.ModelSpec`.
    """

    layer_bytes: tuple[int, ...]
    expert_bytes: tuple[int, ...]
    largest_bytes: int
    input_bytes: int
    output_bytes: int
    tied_bytes: int
    repackable_bytes: Mapping[str, tuple[int, ...]]
    shapes: tuple[LayerShape, ...]


@frozen
class _Layer:
    tensors: dict[str, TensorInfo] = field(factory=dict)

    @property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def expert_bytes(self) -> int:
        return sum(tensor.bytes for name, tensor in self.tensors.items() if _EXPERTS.match(name))

    def width(self, name: str, dimension: int) -> int:
        tensor = self.tensors.get(name)
        return tensor.shape[dimension] if tensor and len(tensor.shape) > dimension else 0

    def has(self, *starts: str) -> bool:
        return any(name.startswith(starts) for name in self.tensors)


def read_layers(tensors: Iterable[TensorInfo], layers: int, loaded: int) -> Layers:
    """Sort ``tensors`` by layer.

    Args:
        tensors: of the whole model.
        layers: how many it counts.
        loaded: how many of these are there to generate; the tensors of all others are left out.
    """
    found = [_Layer() for _ in range(layers)]
    inputs, outputs = _Layer(), _Layer()
    for tensor in tensors:
        match = _LAYER_TENSOR.match(tensor.name)
        if match is not None:
            index = int(match[1])
            if index < loaded:
                found[index].tensors[match[2]] = tensor
        elif tensor.name.startswith(_FIRST_LAYER):
            found[0].tensors[tensor.name] = tensor
        else:
            (inputs if tensor.name.startswith(_INPUTS) else outputs).tensors[tensor.name] = tensor
    embeddings = inputs.tensors.get(_EMBEDDINGS)
    tied = embeddings if _OUTPUT not in outputs.tensors else None
    if tied is not None:
        outputs.tensors[_EMBEDDINGS] = tied
    return Layers(
        layer_bytes=tuple(layer.bytes for layer in found),
        expert_bytes=tuple(layer.expert_bytes for layer in found),
        largest_bytes=max(
            (tensor.bytes for layer in found for tensor in layer.tensors.values()), default=0
        ),
        input_bytes=inputs.bytes,
        output_bytes=outputs.bytes,
        tied_bytes=tied.bytes if tied else 0,
        repackable_bytes=_repackable([*found, outputs]),
        shapes=tuple(_shape(layer) for layer in found),
    )


def _repackable(parts: Sequence[_Layer]) -> dict[str, tuple[int, ...]]:
    """Matrices of types that one CPU or another repacks, whose rows come in eights
    (``ggml-cpu/repack.cpp``), by type.
    """
    sums = [Counter[str]() for _ in parts]
    for part, total in zip(parts, sums, strict=True):
        for tensor in part.tensors.values():
            if (
                tensor.type in _REPACKED
                and len(tensor.shape) in _MATRIX_DIMENSIONS
                and tensor.shape[1] % _REPACKED_ROWS == 0
            ):
                total[tensor.type] += tensor.bytes
    kinds = sorted({kind for total in sums for kind in total})
    return {kind: tuple(total[kind] for total in sums) for kind in kinds}


def _shape(layer: _Layer) -> LayerShape:
    width = layer.width("ffn_down.weight", 0)
    experts = layer.width("ffn_down_exps.weight", 0)
    return LayerShape(
        attends=layer.has("attn_q", "attn_qkv"),
        fused=layer.has("attn_qkv."),
        recurrence=_recurrence(layer),
        feed_forward=width,
        gated=layer.has("ffn_gate.", "ffn_gate_exps.", "ffn_gate_up_exps.")
        or layer.width("ffn_up.weight", 1) == 2 * width > 0,
        experts=experts,
        shared_experts=layer.width("ffn_down_shexp.weight", 0),
    )


def _recurrence(layer: _Layer) -> Recurrence | None:
    if layer.has("time_mix_"):
        return "rwkv"
    if layer.has("shortconv"):
        return "shortconv"
    if layer.has("ssm_x."):
        return "mamba"
    return "mamba2" if layer.has("ssm_") else None
