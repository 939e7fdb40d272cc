"""A model is known by what it is, not by where it lies."""

from __future__ import annotations

import os
import sys
import time

import pytest

from velollm_core.errors import ModelError
from velollm_core.models.fingerprint import fingerprint
from velollm_core.models.parts import read_model_files


def print_of(path):
    return fingerprint(read_model_files(path))


@pytest.fixture
def model(write_model):
    """A model of four megabytes."""
    return write_model(tensors={"token_embd.weight": (1 << 15, 32)})


def test_it_stays_when_the_file_is_renamed_moved_or_touched(model, tmp_path):
    before = print_of(model)
    (tmp_path / "elsewhere").mkdir()
    moved = model.rename(tmp_path / "elsewhere" / "other.gguf")
    os.utime(moved, (0, 0))
    assert print_of(moved) == before


@pytest.mark.parametrize("place", [-1, 1 << 20, "header", "length"])
def test_it_changes_with_header_size_and_sampled_weights(place, model):
    before = print_of(model)
    content = bytearray(model.read_bytes())
    if place == "length":
        content += bytes(32)
    elif place == "header":
        at = content.find(b"context_length") + len("context_length") + 4
        content[at] ^= 1
    elif place == -1:
        content[-1] ^= 1
    else:
        content[place : place + 300_000] = bytes(
            byte ^ 1 for byte in content[place : place + 300_000]
        )
    model.write_bytes(content)
    assert print_of(model) != before


def test_two_models_differ(write_model):
    one = print_of(write_model("one.gguf", keys={"general.name": "one"}))
    assert one != print_of(write_model("two.gguf", keys={"general.name": "two"}))


@pytest.mark.skipif(sys.platform == "win32", reason="files there are not sparse by themselves")
def test_a_file_of_many_gigabytes_takes_a_moment(write_model):
    path = write_model(tensors={"token_embd.weight": (8, 32)})
    with path.open("r+b") as file:
        file.truncate(40 << 30)
    files = read_model_files(path)
    started = time.perf_counter()
    assert fingerprint(files)
    assert time.perf_counter() - started < 2


def test_a_file_that_vanished_is_an_error_in_one_sentence(write_model):
    files = read_model_files(write_model())
    files[0].path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        fingerprint(files)
