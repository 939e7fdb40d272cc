"""A file that cannot be read gives one sentence that says why, and what to do."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import sys
import zipfile

import gguf
import pytest

from velollm_core.errors import ModelError
from velollm_core.models.gguf import read_gguf

UINT32, STRING, ARRAY = 4, 8, 9


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def array(kind, length, content=b""):
    return struct.pack("<IQ", kind, length) + content


def tensor(name="t", dims=(32,), kind=0, offset=0):
    shape = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return text(name) + shape + struct.pack("<IQ", kind, offset)


def header(keys=(), tensors=(), version=3, key_count=None, tensor_count=None):
    counts = struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    return b"GGUF" + counts + b"".join(keys) + b"".join(tensors)


@pytest.fixture
def refusal(tmp_path):
    """The message with which a file of these bytes is refused."""

    def refuse(content):
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelError) as refused:
            read_gguf(path)
        assert str(path) in refused.value.message
        assert "\n" not in refused.value.message
        assert refused.value.hint
        return refused.value.message.replace(str(path), "FILE")

    return refuse


def test_the_57_bytes_that_claim_half_a_million_elements_are_refused(refusal):
    content = header([key("a.b.c.d.e", ARRAY, array(STRING, 500_000))])
    assert len(content) == 57
    assert refusal(content) == (
        "FILE is damaged: it claims 500,000 texts in the value of key 'a.b.c.d.e', "
        "more than it can hold."
    )


HUGE = 2**63 + 1
CLAIMS = {
    "keys": header(key_count=HUGE),
    "tensors": header(tensor_count=HUGE),
    "a key's length": header(key_count=1) + struct.pack("<Q", HUGE) + bytes(64),
    "a text's length": header([key("k", STRING, struct.pack("<Q", HUGE) + b"x")]),
    "numbers in an array": header([key("k", ARRAY, array(UINT32, HUGE))]),
    "texts in an array": header([key("k", ARRAY, array(STRING, HUGE))]),
    "a text's length in an array": header(
        [key("k", ARRAY, array(STRING, 2, struct.pack("<QQ", HUGE, 0)))]
    ),
    "arrays in an array": header([key("k", ARRAY, array(ARRAY, HUGE))]),
    "a tensor's name": header(tensor_count=1) + struct.pack("<Q", HUGE) + bytes(64),
    "a tensor's shape": header(tensors=[tensor(dims=(HUGE, HUGE, HUGE, HUGE))]) + bytes(256),
    "a tensor's offset": header(tensors=[tensor(offset=HUGE)]) + bytes(256),
    "the shape of an unknown type": header(tensors=[tensor(dims=(HUGE, 2), kind=99)]) + bytes(256),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_huge_claim_is_refused(what, refusal):
    assert refusal(CLAIMS[what])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header(version=1), "is of GGUF version 1, which no engine reads any more"),
        (header(version=4), "says that it is of GGUF version 4; 2 and 3 are known here"),
        (header(version=0), "says that it is of GGUF version 0"),
        (b"GGUF", "is cut short or damaged: the header would end at byte 8, the file at 4"),
        (header([key("k", 13, b"")]), "the value of key 'k' has the unknown type 13"),
        (header([key("k", ARRAY, array(77, 1))]), "is an array of type 77 at depth 1"),
        (
            header([key("k", ARRAY, array(ARRAY, 1) * 9 + bytes(64))]),
            "the value of key 'k' is an array of type 9 at depth 4",
        ),
        (header([key("k", 7, b"\1")] * 2), "it holds the key 'k' twice"),
        (
            header([key("general.alignment", UINT32, struct.pack("<I", 24))]),
            "general.alignment is 24, not a power of two",
        ),
        (
            header([key("general.alignment", UINT32, struct.pack("<I", 0))]),
            "general.alignment is 0, not a power of two",
        ),
        (header([key("general.alignment", STRING, text("32"))]), "general.alignment is '32'"),
        (header(tensors=[tensor(dims=(1,) * 5)]), "tensor 't' has 5 dimensions"),
        (header(tensors=[tensor(), tensor()]), "it holds tensor 't' twice"),
        (
            header(tensors=[tensor(dims=(31,), kind=2)]) + bytes(256),
            "tensor 't' cannot have the shape (31,)",
        ),
    ],
)
def test_damage_is_named(content, reason, refusal):
    assert reason in refusal(content)


def test_a_file_that_was_cut_says_how_much_is_missing(write_model, refusal):
    whole = write_model().read_bytes()
    assert refusal(whole[:-100]) == (
        f"FILE is cut short: its tensors need {len(whole):,} bytes, "
        f"the file has {len(whole) - 100:,}."
    )


def test_a_file_that_was_cut_anywhere_is_refused(write_model, refusal):
    whole = write_model(tensors={"token_embd.weight": (1, 32)}).read_bytes()
    for length in range(len(whole)):
        assert refusal(whole[:length])


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", "x")
    return file.getvalue()


SAFETENSORS = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (struct.pack("<Q", len(SAFETENSORS)) + SAFETENSORS + bytes(4), "a safetensors file"),
        (zipped(), "a zip archive, as PyTorch"),
        (pickle.dumps([1], protocol=2), "a Python pickle"),
        (gzip.compress(b"GGUF", mtime=0), "a compressed archive"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a Git LFS pointer",
        ),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"Entry not found\n", "text that begins with 'Entry not found'"),
        (b"lmgg" + bytes(100), "a model in a format older than GGUF"),
        (bytes(100), "nothing but zeros"),
        (b"\x7fELF" + bytes(range(100)), "some other binary file"),
    ],
)
def test_another_kind_of_file_is_recognised(content, kind, refusal):
    assert f"FILE is no GGUF file but {kind}" in refusal(content)


def test_an_empty_file_is_refused(refusal):
    assert refusal(b"") == "FILE is empty."


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"there is no file .*nothing\.gguf"):
        read_gguf(tmp_path / "nothing.gguf")


def test_a_directory_is_refused_with_the_models_in_it(tmp_path):
    (tmp_path / "a.gguf").touch()
    with pytest.raises(ModelError, match="is a directory") as refused:
        read_gguf(tmp_path)
    assert refused.value.hint == "Name a file in it: a.gguf."


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="is no regular file"):
        read_gguf(tmp_path / "pipe")


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom rights bind"
)
def test_a_file_that_may_not_be_read_is_refused(write_model):
    path = write_model()
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        read_gguf(path)


def test_a_path_that_no_system_has_is_refused(tmp_path):
    with pytest.raises(ModelError):
        read_gguf(tmp_path / "a\0b")


def test_invalid_utf_8_is_replaced_and_not_refused(tmp_path):
    path = tmp_path / "model.gguf"
    words = array(STRING, 2, text(b"\xff") + text("ok"))
    path.write_bytes(header([key("text", STRING, text(b"a\xffb")), key("words", ARRAY, words)]))
    metadata = read_gguf(path).metadata
    assert metadata["text"] == "a\N{REPLACEMENT CHARACTER}b"
    assert metadata["words"].values() == ["\N{REPLACEMENT CHARACTER}", "ok"]


def test_a_tensor_type_of_the_future_is_let_pass_with_the_room_it_has(tmp_path):
    path = tmp_path / "model.gguf"
    front = header(tensors=[tensor("new", (64,), 99), tensor("old", (32,), 0, offset=96)])
    data_offset = -(-len(front) // 32) * 32
    path.write_bytes(front.ljust(data_offset, b"\0") + bytes(96 + 128))
    new, old = read_gguf(path).tensors
    assert (new.type, new.bytes, new.elements) == ("type 99", 96, 64)
    assert (old.type, old.bytes) == ("F32", 128)


def test_many_inner_arrays_are_refused_before_they_are_made(refusal):
    content = header([key("k", ARRAY, array(ARRAY, 70_000, array(UINT32, 0) * 70_000))])
    assert "it claims 70,000 arrays in the value of key 'k'" in refusal(content)


def test_big_endian_is_recognised(write_model):
    file = read_gguf(write_model(endianess=gguf.GGUFEndian.BIG))
    assert file.big_endian
    assert file.metadata["llama.block_count"] == 2


def test_a_text_of_several_megabytes_is_kept_but_not_decoded(tmp_path):
    path = tmp_path / "model.gguf"
    long = "é" * (1 << 20)
    path.write_bytes(header([key("long", STRING, text(long)), key("next", 7, b"\1")]))
    metadata = read_gguf(path).metadata
    assert metadata["long"].values() == [long]
    assert metadata["next"] is True


def test_texts_beyond_a_mebibyte_together_are_kept_but_not_decoded(tmp_path):
    path = tmp_path / "model.gguf"
    texts = {name: text(name * size) for name, size in {"a": 900_000, "b": 200_000, "c": 9}.items()}
    path.write_bytes(header([key(name, STRING, value) for name, value in texts.items()]))
    metadata = read_gguf(path).metadata
    assert metadata["a"] == "a" * 900_000
    assert metadata["b"].values() == ["b" * 200_000]
    assert metadata["c"] == "c" * 9


def test_a_name_longer_than_the_format_allows_is_refused(refusal):
    assert "the name of key 1 is 65,536 bytes long" in refusal(
        header([key("k" * 65_536, 7, b"\1")])
    )
