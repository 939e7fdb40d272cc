"""What a file that is no GGUF model seems to be, so that the message can say so."""

from __future__ import annotations

_LLAMA_CPP_2023 = "a model in a format older than GGUF (GGML of 2023)"
_ARCHIVE = "a compressed archive; unpack it first"

_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer: the repository was cloned without its files"),
    (b"PK\x03\x04", "a zip archive, as PyTorch checkpoints and wheels are"),
    (b"\x80\x02", "a Python pickle, as old PyTorch checkpoints are"),
    (b"\x89HDF", "an HDF5 file, as Keras models are"),
    (b"lmgg", _LLAMA_CPP_2023),
    (b"fmgg", _LLAMA_CPP_2023),
    (b"tjgg", _LLAMA_CPP_2023),
    (b"algg", _LLAMA_CPP_2023),
    (b"\x1f\x8b", _ARCHIVE),
    (b"\x28\xb5\x2f\xfd", _ARCHIVE),
    (b"\xfd7zXZ", _ARCHIVE),
    (b"7z\xbc\xaf", _ARCHIVE),
    (b"BZh", _ARCHIVE),
)


def looks_like(head: bytes) -> str:
    """The likely nature of a file that begins with ``head`` (some hundred bytes), in words."""
    for beginning, words in _BEGINNINGS:
        if head.startswith(beginning):
            return words
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file; llama.cpp's convert_hf_to_gguf.py turns it into GGUF"
    if not head.strip(b"\0"):
        return "nothing but zeros: a download that was never finished"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: the server sent an error or a login form instead of the file"
    if head.isascii() and not any(byte < 9 for byte in head):
        line = head[:40].decode("ascii").strip().partition("\n")[0]
        return f"text that begins with {line!r}"
    return "some other binary file"
