"""What tells one model from another without reading tens of gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from velollm_core.errors import ModelError
from velollm_core.models.gguf import GgufFile

_SAMPLES = 16
_SAMPLE_BYTES = 64 << 10


def fingerprint(files: Sequence[GgufFile]) -> str:
    """A hash of size, header and 16 evenly spaced blocks of 64 KiB of each file of a model.

    It does not change when files are renamed, moved or touched. Weights that differ only between
    the blocks go unnoticed; a new conversion, quantization or edit of the metadata does not.

    Raises:
        ModelError: a file cannot be read any more.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.file_bytes}\n".encode())
        digest.update(file.header)
        last = max(0, file.file_bytes - _SAMPLE_BYTES)
        try:
            with file.path.open("rb", buffering=0) as weights:
                for sample in range(_SAMPLES):
                    weights.seek(last * sample // (_SAMPLES - 1))
                    digest.update(weights.read(_SAMPLE_BYTES))
        except OSError as error:
            raise ModelError(f"{file.path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()[:32]
