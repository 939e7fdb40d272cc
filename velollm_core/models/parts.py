"""Models that are split over several files: ``name-00001-of-00003.gguf`` and so on."""

from __future__ import annotations

import re
from pathlib import Path

from velollm_core.errors import ModelError
from velollm_core.models.gguf import GgufFile, read_gguf

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def part_names(name: str) -> tuple[str, ...]:
    """The names of all files of the model that the file ``name`` is part of, in order.

    A name that does not end like ``-00002-of-00003.gguf`` is that of a whole model.
    """
    match = _PART.fullmatch(name)
    if match is None:
        return (name,)
    stem, part, count = match[1], int(match[2]), int(match[3])
    if not 1 <= part <= count:
        return (name,)
    return tuple(f"{stem}-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1))


def read_model_files(path: Path) -> tuple[GgufFile, ...]:
    """The metadata of the model at ``path``: of all its files, in order, if it is split.

    Args:
        path: a GGUF file; of a split model, any of its parts.

    Raises:
        ModelError: a file is missing, cut short, damaged, or does not belong to the others.
    """
    asked = read_gguf(path)
    count = asked.metadata.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return (asked,)
    paths = [path.with_name(name) for name in part_names(path.name)]
    if len(paths) != count:
        raise ModelError(
            f"{path} is one of {count} parts of a model, but its name does not say which.",
            f"Give all parts their names back: NAME-00001-of-{count:05d}.gguf and so on.",
        )
    missing = [part.name for part in paths if not part.exists()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise ModelError(
            f"{path} is one of {count} parts of a model; of the others, {shown} is missing.",
            f"Put all parts into {path.parent}.",
        )
    files = tuple(asked if part == path else read_gguf(part) for part in paths)
    for index, file in enumerate(files):
        if file.metadata.get("split.no") != index or file.metadata.get("split.count") != count:
            raise ModelError(
                f"{file.path} does not say that it is part {index + 1} of {count}.",
                "Put parts of one and the same model together.",
            )
    held, said = sum(len(file.tensors) for file in files), asked.metadata.get("split.tensors.count")
    if said is not None and said != held:
        raise ModelError(
            f"{path} and its other parts hold {held} tensors, and should hold {said}.",
            "Put parts of one and the same model together.",
        )
    return files
