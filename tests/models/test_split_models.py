"""Models in several files: found whole from any part, or refused with what is missing."""

from __future__ import annotations

import pytest

from velollm_core.errors import ModelError
from velollm_core.models.fingerprint import fingerprint
from velollm_core.models.header import model_spec
from velollm_core.models.parts import part_names, read_model_files

TENSORS = {f"blk.{layer}.attn_norm.weight": (32,) for layer in range(6)}


@pytest.fixture
def parts(write_model, tmp_path):
    """The three files of a model of six tensors."""
    write_model("big-model.gguf", tensors=TENSORS, split_max_tensors=2)
    return [tmp_path / f"big-model-0000{index}-of-00003.gguf" for index in (1, 2, 3)]


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_any_part_leads_to_the_whole_model(asked, parts):
    files = read_model_files(parts[asked])
    assert [file.path for file in files] == parts
    spec = model_spec(files)
    assert (spec.split_count, spec.tensor_count, spec.parameter_count) == (3, 6, 6 * 32)
    assert spec.type_bytes == {"F32": 6 * 128}
    assert spec.file_bytes == sum(part.stat().st_size for part in parts)


def test_parts_that_are_missing_are_named(parts):
    parts[1].unlink()
    parts[2].unlink()
    with pytest.raises(ModelError) as refused:
        read_model_files(parts[0])
    assert "big-model-00002-of-00003.gguf, big-model-00003-of-00003.gguf" in refused.value.message


def test_a_part_that_was_renamed_is_refused(parts):
    renamed = parts[0].rename(parts[0].with_name("model.gguf"))
    with pytest.raises(ModelError, match="is one of 3 parts of a model, but its name") as refused:
        read_model_files(renamed)
    assert "NAME-00001-of-00003.gguf" in refused.value.hint


def test_parts_in_each_others_place_are_refused(parts):
    second = parts[1].read_bytes()
    parts[1].write_bytes(parts[2].read_bytes())
    parts[2].write_bytes(second)
    with pytest.raises(ModelError, match="does not say that it is part 2 of 3"):
        read_model_files(parts[0])


def test_a_part_of_another_model_is_noticed_by_the_number_of_tensors(parts, write_model):
    others = {"blk.0.attn_norm.weight": (32,), "blk.1.attn_norm.weight": (32,)}
    kept = [part.read_bytes() for part in parts[:2]]
    write_model("big-model.gguf", tensors={**others, **TENSORS}, keys={"x": 1}, split_max_tensors=2)
    third = parts[2]
    stranger = read_model_files(third)
    assert len(stranger) == 3
    for part, content in zip(parts[:2], kept, strict=True):
        part.write_bytes(content)
    third.write_bytes(_with_fewer_tensors(write_model, third))
    with pytest.raises(ModelError, match="hold 5 tensors, and should hold 6"):
        read_model_files(parts[0])


def _with_fewer_tensors(write_model, path):
    """A third part that holds one tensor instead of two."""
    write_model("odd.gguf", tensors=dict(list(TENSORS.items())[:5]), split_max_tensors=2)
    return path.with_name("odd-00003-of-00003.gguf").read_bytes()


def test_a_damaged_part_is_named(parts):
    parts[2].write_bytes(parts[2].read_bytes()[:-64])
    with pytest.raises(ModelError, match=r"big-model-00003-of-00003\.gguf is cut short"):
        read_model_files(parts[0])


def test_the_fingerprint_covers_every_part(parts):
    before = fingerprint(read_model_files(parts[0]))
    content = bytearray(parts[2].read_bytes())
    content[-1] ^= 1
    parts[2].write_bytes(content)
    assert fingerprint(read_model_files(parts[0])) != before


@pytest.mark.parametrize(
    "name",
    ["model.gguf", "m-0001-of-0003.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m"],
)
def test_a_name_that_is_no_parts_name_stands_for_itself(name):
    assert part_names(name) == (name,)


def test_a_parts_name_leads_to_all_names():
    assert part_names("m-00002-of-00002.gguf") == ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
