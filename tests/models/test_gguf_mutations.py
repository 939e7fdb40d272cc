"""Damaged files cost next to nothing: no traceback, no hang, no memory.

A child process does the reading, so that its peak memory is the reader's alone.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from functools import partial

import gguf
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from velollm_core.models.gguf import read_gguf

_MEMORY_BYTES = 64 << 20
_SECONDS = 2.0

_READER = """
import json, sys, time, traceback
from pathlib import Path

import psutil
from velollm_core.errors import ModelError, UsageError
from velollm_core.models.describe import describe
from velollm_core.models.fit import Budget, largest_context
from velollm_core.models.fingerprint import fingerprint
from velollm_core.models.header import model_spec
from velollm_core.models.memory import Placement, Use, plan_memory
from velollm_core.models.parts import read_model_files
from velollm_core.models.roofline import Arithmetic, DeviceRates, Rate, Rates, decode, prefill
from velollm_core.models.spec import Model

KERNELS = Arithmetic(vector={"*": Rate(1e9)}, matrix={"*": Rate(1e9)})
DEVICE = DeviceRates(bandwidth_bytes_per_s=1e10, weights=KERNELS, attention=KERNELS)
RATES = Rates(host=DEVICE, gpus=(DEVICE,), link_bytes_per_s=1e9, step_s=1e-4)

def peak_bytes():
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":  # where ru_maxrss is inherited from the parent
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

def read(path):
    files = read_model_files(path)
    for file in files:
        for value in file.metadata.values():
            if hasattr(value, "values") and len(value.raw) < 10_000:
                value.values()
    fingerprint(files)
    use_model(model_spec(files))

def use_model(spec):
    describe(Model(reference="mutant", spec=spec))
    for attention, kind in ((True, "f16"), (False, "f16"), (True, "q8_0")):
        use = Use(context_tokens=512, flash_attention=attention, type_k=kind, type_v=kind)
        try:
            for placement in (Placement(), Placement(gpu_layers=1, cpu_expert_layers=1)):
                plan_memory(spec, use, placement, gpus=1)
                decode(spec, use, RATES, placement, depth_tokens=100)
                prefill(spec, use, RATES, placement)
            largest_context(spec, use, Budget(host_bytes=1 << 30), Placement())
        except UsageError as error:  # heads that do not fill the blocks of this type
            assert kind == "q8_0", error

print(json.dumps(peak_bytes()), flush=True)
for line in sys.stdin:
    started, trace = time.perf_counter(), None
    try:
        read(Path(json.loads(line)))
        outcome = "read"
    except ModelError as error:
        outcome = error.message
    except BaseException:
        outcome, trace = "crashed", traceback.format_exc()
    took = time.perf_counter() - started
    print(json.dumps([outcome, trace, took, peak_bytes()]), flush=True)
"""


class Reader:
    """The child, and what it had in memory before it read anything."""

    def __init__(self):
        self.child = subprocess.Popen(
            [sys.executable, "-c", _READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.idle_bytes = json.loads(self.child.stdout.readline())
        self.outcomes = []

    def check(self, path):
        """Have the file read; anything but success or one sentence fails the test."""
        self.child.stdin.write(json.dumps(str(path)) + "\n")
        self.child.stdin.flush()
        outcome, trace, took_s, peak_bytes = json.loads(self.child.stdout.readline())
        assert trace is None, trace
        assert took_s < _SECONDS, outcome
        assert peak_bytes - self.idle_bytes < _MEMORY_BYTES, outcome
        assert "\n" not in outcome
        self.outcomes.append(outcome)
        return outcome

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait(10)


@pytest.fixture(scope="module")
def reader():
    child = Reader()
    yield child
    child.close()


def seeds(write_model, demo_path):
    """Small files that use every feature, and the header of the demo model; each with its size."""
    small = [
        write_model("plain.gguf"),
        write_model("keys.gguf", keys={"words": ["a", "bc", ""] * 20, "nested": [[1, 2], [3]]}),
        write_model("big.gguf", keys={"numbers": [1, 2, 3]}, endianess=gguf.GGUFEndian.BIG),
        write_model("layers.gguf", keys={"llama.attention.head_count_kv": [4, 1]}),
        write_model("tensors.gguf", tensors={f"blk.{i}.attn_k": (2, 32) for i in range(9)}),
    ]
    whole = [(path.read_bytes(), path.stat().st_size) for path in small]
    demo = read_gguf(demo_path)
    return [*whole, *whole, (bytes(demo.header).ljust(demo.data_offset, b"\0"), demo.file_bytes)]


_LENGTHS = st.sampled_from(
    [0, 1, 57, 255, 500_000, 2**16, 2**31 - 1, 2**32, 2**40, 2**62, 2**63, 2**64 - 1]
) | st.integers(0, 2**64 - 1)


@st.composite
def mutants(draw, originals):
    """The bytes of a damaged file, and the size that it is brought to with zeros at its end."""
    content, size = draw(st.sampled_from(originals))
    content = bytearray(content)
    places = st.integers(24, min(len(content), 4096) - 1) | st.integers(0, len(content) - 1)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(places)
        kind = draw(st.sampled_from(["flip", "length", "counts", "splice", "drop", "cut"]))
        if kind == "flip":
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "length":
            content[place : place + 8] = struct.pack(
                draw(st.sampled_from("<>")) + "Q", draw(_LENGTHS)
            )
        elif kind == "counts":
            field = draw(st.sampled_from([4, 8, 16]))
            content[field : field + 8] = struct.pack("<Q", draw(_LENGTHS))
        elif kind == "splice":
            donor = draw(st.sampled_from(originals))[0]
            start = draw(st.integers(0, len(donor) - 1))
            content[place:place] = donor[start : start + draw(st.integers(1, 300))]
        elif kind == "drop":
            del content[place : place + draw(st.integers(1, 300))]
        else:
            del content[max(place, 1) :]
            size = len(content)
    return bytes(content), size


def test_500_damaged_files_are_read_or_refused_in_one_sentence(
    write_model, demo_path, reader, tmp_path
):
    originals = seeds(write_model, demo_path)
    path = tmp_path / "mutant.gguf"

    @settings(
        max_examples=500,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutants(originals))
    @example((claim_of_half_a_million(), 57))
    def check(mutant):
        content, size = mutant
        path.write_bytes(content)
        with path.open("r+b") as file:
            file.truncate(max(size, len(content)))
        reader.check(path)

    check()
    assert len(reader.outcomes) >= 500
    read = reader.outcomes.count("read")
    assert 0 < read < len(reader.outcomes) / 2, "the damage is too slight, or too coarse"


COUNTS = (
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
    *("expert_count", "expert_used_count", "nextn_predict_layers"),
    *("wkv.head_size", "token_shift_count", "shortconv.l_cache", "kda.head_dim"),
    *(f"ssm.{part}" for part in ("conv_kernel", "inner_size", "state_size", "group_count")),
    *(
        f"attention.{part}"
        for part in (
            *("head_count", "head_count_kv", "key_length", "value_length", "key_length_mla"),
            *("sliding_window", "sliding_window_pattern", "shared_kv_layers"),
        )
    ),
)
TENSORS = {
    "token_embd.weight": (8, 32),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (32, 32),
    "blk.0.ffn_gate_exps.weight": (2, 64, 32),
    "blk.0.ffn_down_exps.weight": (2, 32, 64),
    "blk.1.ssm_in.weight": (32, 32),
}


@pytest.mark.parametrize("key", COUNTS)
def test_a_model_with_any_number_under_a_key_is_planned_or_refused(key, write_model, reader):
    mixture = {"llama.expert_count": 2, "llama.expert_used_count": 1}
    for value in (0, 1, 2**31 - 1, 2**40, 2**62):

        def add(writer, value=value):
            writer.add_uint64(f"llama.{key}", value)

        path = write_model(keys=mixture | {f"llama.{key}": None}, tensors=TENSORS, add=add)
        outcome = reader.check(path)
        assert outcome == "read" or f"llama.{key} is " in outcome or "expert_used_count" in outcome


def claim_of_half_a_million():
    """57 bytes: one key, an array of 500,000 texts of which there are none."""
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    content += struct.pack("<Q9sI", 9, b"a.b.c.d.e", 9) + struct.pack("<IQ", 8, 500_000)
    assert len(content) == 57
    return content


@pytest.mark.parametrize("claim", [40 << 20, 4 << 30])
@pytest.mark.parametrize(
    ("opening", "least_bytes"),
    [
        (struct.pack("<I", 8), 1),  # a text
        (struct.pack("<II", 9, 0), 1),  # arrays: of bytes,
        (struct.pack("<II", 9, 8), 8),  # of texts,
        (struct.pack("<II", 9, 9), 12),  # of arrays,
        (struct.pack("<II", 9, 12), 8),  # and of doubles
    ],
)
def test_a_large_file_that_claims_all_of_itself_as_one_value_is_bounded(
    opening, least_bytes, claim, reader, tmp_path
):
    path = tmp_path / "large.gguf"
    front = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1s", 1, b"k")
    path.write_bytes(front + opening + struct.pack("<Q", claim // least_bytes))
    with path.open("r+b") as file:
        file.truncate(claim + 1000)  # sparse where the file system allows it
    assert reader.check(path) != "read"


def sized(content):
    return struct.pack("<Q", len(content)) + content


def front(keys, tensors=0):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)


def texts_of_a_mebibyte():
    wide = "\N{GRINNING FACE}".encode().ljust(1 << 20, b"a")  # four bytes a character in Python
    texts = (sized(b"k%d" % n) + struct.pack("<I", 8) + sized(wide) for n in range(46))
    return front(46) + b"".join(texts)


def keys_of_700_bytes(count):
    wide = "\N{GRINNING FACE}".encode().ljust(695, b"a")
    keys = (sized(wide + b"%05d" % n) + struct.pack("<I?", 7, True) for n in range(count))
    return front(count) + b"".join(keys)


def model_keys(layers):
    counts = {"block_count": layers, "embedding_length": 32, "context_length": 128}
    return [
        sized(b"general.architecture") + struct.pack("<I", 8) + sized(b"llama"),
        *(sized(b"llama." + key.encode()) + struct.pack("<II", 4, n) for key, n in counts.items()),
    ]


def layers_of_texts(key):
    """Where a model has a number for each of its layers, there are texts."""
    wide = sized("\N{GRINNING FACE}".encode().ljust(7_000, b"a"))
    keys = model_keys(4096)
    keys.append(sized(b"llama.attention." + key) + struct.pack("<IIQ", 9, 8, 4096) + wide * 4096)
    return front(len(keys)) + b"".join(keys)


def everything_at_once():
    """As many keys, arrays and tensors as are let pass, long names, texts, and one long array."""
    count, wide = 16_384, "\N{GRINNING FACE}".encode()
    array = struct.pack("<IQ", 0, 0)
    keys = model_keys(4096)
    keys += [sized(b"long") + struct.pack("<I", 8) + sized(wide.ljust((1 << 20) - 5, b"a"))]
    keys += [sized(b"arrays") + struct.pack("<IIQ", 9, 9, count) + array * count]
    keys += [sized(b"words") + struct.pack("<IIQ", 9, 0, 27 << 20) + bytes(27 << 20)]
    keys += [
        sized(wide + b"%022d" % n) + struct.pack("<I", 9) + array for n in range(count - len(keys))
    ]
    tensors = (
        sized(wide + b"%022d" % n) + struct.pack("<I4QIQ", 4, 300, 301, 302, 0, 1000 + n, 0)
        for n in range(count)
    )
    return front(count, count) + b"".join(keys) + b"".join(tensors) + bytes(64)


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (texts_of_a_mebibyte, "lies beyond 33,554,432 bytes of metadata"),
        (partial(keys_of_700_bytes, 65_000), "it claims 65,000 keys, more than it can hold"),
        (partial(keys_of_700_bytes, 16_000), "brings its names beyond 1,048,576 bytes"),
        (partial(layers_of_texts, b"head_count"), "head_count is 'an array of texts'"),
        (partial(layers_of_texts, b"sliding_window_pattern"), "read"),
        (everything_at_once, "read"),
    ],
)
def test_a_file_full_of_what_python_stores_widely_is_bounded(content, outcome, tmp_path):
    path = tmp_path / "wide.gguf"
    path.write_bytes(content())
    reader = Reader()  # of its own: another file may have left memory that this one would reuse
    try:
        assert outcome in reader.check(path)
    finally:
        reader.close()


def test_the_demo_model_cut_at_every_tenth_is_refused(demo_path, reader, tmp_path):
    path = tmp_path / "cut.gguf"
    shutil.copyfile(demo_path, path)
    size = path.stat().st_size
    for tenth in range(9, 0, -1):
        with path.open("r+b") as file:
            file.truncate(size * tenth // 10)
        assert "is cut short" in reader.check(path)
