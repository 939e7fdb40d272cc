"""The metadata reader agrees with the gguf library, which reads by another way."""

from __future__ import annotations

import time

import gguf
import numpy as np
import pytest

from velollm_core.models.ggml_types import FILE_TYPES, TENSOR_TYPES
from velollm_core.models.gguf import read_gguf
from velollm_core.models.gguf_values import GgufArray

_ARRAY = gguf.GGUFValueType.ARRAY
_FIXED = {kind: np.dtype(dtype) for kind, dtype in gguf.GGUFReader.gguf_scalar_to_np.items()}


def flat(value):
    """An array's elements as the library gives them: inner arrays run together."""
    if not isinstance(value, GgufArray):
        return value
    if value.element_type == "array":
        return [leaf for inner in value.values() for leaf in flat(inner)]
    return value.values()


def assert_agreement(path):
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    said = {name: entry for name, entry in theirs.fields.items() if not name.startswith("GGUF.")}
    assert list(ours.metadata) == list(said)
    for key, entry in said.items():
        value = ours.metadata[key]
        assert flat(value) == entry.contents(), key
        assert isinstance(value, GgufArray) == (entry.types[0] == _ARRAY), key
        if isinstance(value, GgufArray):
            assert value.element_type == entry.types[1].name.lower(), key
    assert ours.version == theirs.fields["GGUF.version"].contents()
    assert ours.big_endian == (theirs.endianess == gguf.GGUFEndian.BIG)
    assert (ours.alignment, ours.data_offset) == (theirs.alignment, theirs.data_offset)
    assert ours.file_bytes == path.stat().st_size
    assert [
        (tensor.name, tensor.shape, tensor.type, tensor.bytes, ours.data_offset + tensor.offset)
        for tensor in ours.tensors
    ] == [
        (
            tensor.name,
            tuple(tensor.shape.tolist()),
            tensor.tensor_type.name,
            tensor.n_bytes,
            tensor.data_offset,
        )
        for tensor in theirs.tensors
    ]
    assert [tensor.elements for tensor in ours.tensors] == [
        tensor.n_elements for tensor in theirs.tensors
    ]
    return ours


def best_of(runs, path):
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        read_gguf(path)
        times.append(time.perf_counter() - started)
    return min(times)


def test_every_key_and_tensor_of_the_demo_model_is_read_as_the_library_reads_it(demo_path):
    ours = assert_agreement(demo_path)
    assert ours.metadata["tokenizer.ggml.tokens"].length == 49_152
    assert ours.metadata["tokenizer.ggml.merges"].length == 48_900


@pytest.mark.timeout(600)
def test_every_key_and_tensor_of_gemma_is_read_as_the_library_reads_it(gemma_path):
    ours = assert_agreement(gemma_path)
    assert ours.metadata["tokenizer.ggml.tokens"].length == 262_144


@pytest.mark.timeout(600)
def test_headers_are_read_in_a_blink(demo_path, gemma_path):
    # Twice what is promised on a desktop, so that a busy build machine does not decide the test.
    assert best_of(10, demo_path) < 2 * 0.050
    assert best_of(10, gemma_path) < 2 * 0.150


def scalars(writer):
    edges = {
        "UINT8": (0, 255),
        "INT8": (-128, 127),
        "UINT16": (0, 65_535),
        "INT16": (-32_768, 32_767),
        "UINT32": (0, 2**32 - 1),
        "INT32": (-(2**31), 2**31 - 1),
        "UINT64": (0, 2**64 - 1),
        "INT64": (-(2**63), 2**63 - 1),
        "FLOAT32": (-0.1, float("inf")),
        "FLOAT64": (1e-300, float("-inf")),
        "BOOL": (False, True),
    }
    for name, values in edges.items():
        for index, value in enumerate(values):
            writer.add_key_value(f"scalar.{name}.{index}", value, gguf.GGUFValueType[name])
    writer.add_string("scalar.text", "Grüße, 世界 \N{SNOWMAN}\0\n")


def arrays(writer):
    for kind, dtype in _FIXED.items():
        values = np.arange(-3, 70).astype(dtype).tolist()
        writer.add_key_value(f"array.{kind.name}", values, _ARRAY, sub_type=kind)
    writer.add_array("array.text", ["", "a", "é" * 300, "\n"])
    writer.add_array("array.bytes", b"\x00\xff")


def quantized(writer):
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        data = np.zeros((3, 2 * size), dtype=np.uint8)
        writer.add_tensor(f"blk.0.{kind.name}.weight", data, raw_dtype=kind)
        assert elements * 2 == 2 * TENSOR_TYPES[kind].block_elements


def other_shapes(writer):
    for shape in ((), (5,), (2, 3), (2, 3, 4), (2, 1, 3, 4), (0, 4)):
        writer.add_tensor(f"shape.{len(shape)}.{0 in shape}", np.ones(shape, dtype=np.float16))


MIXTURE = {"llama.expert_count": 8, "llama.expert_used_count": 2}
MAMBA = {
    "mamba.ssm.conv_kernel": 4,
    "mamba.ssm.inner_size": 64,
    "mamba.ssm.state_size": 16,
    "mamba.ssm.time_step_rank": 2,
    "mamba.attention.head_count": 0,
}

SYNTHETIC = {
    "every scalar type": {"add": scalars},
    "arrays of every type": {"add": arrays},
    "arrays of arrays": {"keys": {"nested": [[[1, 2], [3]], [[4]]], "texts": [["a", "b"], ["c"]]}},
    "a mixture of experts": {"keys": MIXTURE, "tensors": {"blk.0.ffn_up_exps.weight": (8, 4, 32)}},
    "Mamba": {"arch": "mamba", "keys": MAMBA, "tensors": {"blk.0.ssm_a": (64, 16)}},
    "heads by layer": {"keys": {"llama.attention.head_count_kv": [4, 0]}},
    "big-endian": {
        "endianess": gguf.GGUFEndian.BIG,
        "add": lambda writer: (scalars(writer), arrays(writer)),
    },
    "another alignment": {"add": lambda writer: writer.add_custom_alignment(1024)},
    "every tensor type": {"add": quantized},
    "every number of dimensions": {"add": other_shapes},
    "no tensors": {"tensors": {}},
}


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_synthetic_file_is_read_as_the_library_reads_it(name, write_model):
    assert_agreement(write_model(**SYNTHETIC[name]))


def test_every_part_of_a_split_model_is_read_as_the_library_reads_it(write_model, tmp_path):
    tensors = {f"blk.{layer}.attn_norm.weight": (32,) for layer in range(5)}
    write_model("split.gguf", tensors=tensors, split_max_tensors=2)
    parts = sorted(tmp_path.glob("split-*.gguf"))
    assert len(parts) == 3
    for part in parts:
        assert_agreement(part)


def test_version_2_is_read_like_version_3(write_model):
    path = write_model(add=arrays)
    whole = bytearray(path.read_bytes())
    whole[4] = 2
    path.write_bytes(whole)
    assert assert_agreement(path).version == 2


def test_the_table_of_tensor_types_is_the_librarys():
    assert {
        number: (kind.name, kind.block_elements, kind.block_bytes)
        for number, kind in TENSOR_TYPES.items()
    } == {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}


def test_the_table_of_file_types_is_the_librarys():
    theirs = {kind.value: kind.name for kind in gguf.LlamaFileType if kind.name != "GUESSED"}
    assert {
        number: name.removeprefix("ALL_").removeprefix("MOSTLY_") for number, name in theirs.items()
    } == FILE_TYPES
