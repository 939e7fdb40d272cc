"""Versioned JSON documents in and out. The only place that touches converters.

A document is an object whose first key is ``"schema": "velollm.<kind>/<major>"``. What is read is
either whole and of the newest major, or refused in one sentence that names the file and the key:
unknown keys, missing keys and values of another type are never repaired in silence.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import tempfile
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cattrs import Converter, transform_error
from cattrs.preconf.json import make_converter

from velollm_core.config import Config
from velollm_core.errors import DocumentError, UsageError

T = TypeVar("T")


def _strict(accepted: tuple[type, ...], kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, target: Any) -> Any:
        if issubclass(target, Enum):  # a StrEnum is dispatched as the text that it also is
            return _structure_enum(value, target)
        # type(), not isinstance: True is an int, and "7" must not become 7.
        if type(value) not in accepted:
            raise TypeError(f"expected {kind.__name__}, got {reprlib.repr(value)}")
        return kind(_finite(value))

    return structure


def _structure_value(value: Any, _: Any) -> Any:
    if type(value) not in {bool, int, float, str}:
        raise TypeError(f"expected a boolean, number or text, got {reprlib.repr(value)}")
    return _finite(value)


def _finite(value: Any) -> Any:
    """``value``, which if it is a number can be calculated with.

    Raises:
        OverflowError: it is an integer that no float can hold.
        ValueError: it is infinite, as JSON's 1e400 becomes, or none.
    """
    if not isinstance(value, str) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return value


def _structure_enum(value: Any, kind: Any) -> Any:
    known = [member.value for member in kind]
    if type(value) is not str or value not in known:
        raise TypeError(f"expected one of {', '.join(known)}, got {reprlib.repr(value)}")
    return kind(value)


def _structure_config(value: Any, _: Any) -> Config:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object of knobs, got {reprlib.repr(value)}")
    return Config({str(name): _structure_value(entry, None) for name, entry in value.items()})


def _converter() -> Converter:
    converter = make_converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _strict((int,), int))
    converter.register_structure_hook(float, _strict((int, float), float))
    converter.register_structure_hook(str, _strict((str,), str))
    converter.register_structure_hook(bool, _strict((bool,), bool))
    converter.register_structure_hook(bool | int | float | str, _structure_value)
    converter.register_structure_hook(Config, _structure_config)
    converter.register_unstructure_hook(Config, dict)
    converter.register_unstructure_hook(Path, str)
    return converter


_CONVERTER = _converter()


def _reason(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "required key missing"
    return str(error)


def to_plain(value: object) -> Any:
    """``value`` (attrs classes, tuples, mappings) as dicts, lists, numbers and text."""
    return _CONVERTER.unstructure(value)


def from_plain(raw: object, kind: type[T], where: str) -> T:
    """``raw`` as an instance of ``kind``.

    Args:
        raw: what ``json.loads`` gave.
        kind: an attrs class.
        where: the file, for the message.

    Raises:
        DocumentError: naming every key that is unknown, missing or of the wrong type.
    """
    try:
        return _CONVERTER.structure(raw, kind)
    except Exception as error:
        faults = transform_error(error, path="$", format_exception=_reason)
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise DocumentError(f"{where}: {shown}.") from error


def dumps(kind: str, major: int, value: object) -> str:
    """A document as text: two-space indented JSON with the schema first.

    Raises:
        DocumentError: it holds a number that JSON lacks; the first one's key is named.
    """
    document = {"schema": f"velollm.{kind}/{major}", **to_plain(value)}
    try:
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        reason = next(_not_finite(document, "$"), str(error))
        raise DocumentError(f"this {kind} document cannot be written as JSON: {reason}.") from error


def _not_finite(value: object, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{value} @ {path}"
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _not_finite(entry, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            yield from _not_finite(entry, f"{path}[{position}]")


def loads(text: str, kind: str, major: int, cls: type[T], where: str) -> T:
    """The document in ``text``.

    Raises:
        DocumentError: it is not JSON, of another kind or major, or does not fit ``cls``.
    """
    try:
        raw = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise DocumentError(f"{where} is not JSON: {error}.") from error
    except RecursionError as error:
        raise DocumentError(f"{where} is no VeloLLM document: it is nested too deeply.") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(schema, str) or not schema.startswith("velollm."):
        raise DocumentError(f"{where} is no VeloLLM document: it has no key 'schema'.")
    found, _, version = schema.removeprefix("velollm.").partition("/")
    if found != kind:
        raise DocumentError(f"{where} holds a {found!r} document, a {kind!r} is needed.")
    if version != str(major):
        raise DocumentError(
            f"{where} has schema {schema}; this VeloLLM reads velollm.{kind}/{major}.",
            "Use the version of VeloLLM that wrote it, or measure again.",
        )
    return from_plain({key: entry for key, entry in raw.items() if key != "schema"}, cls, where)


def _refuse_constant(name: str) -> NoReturn:
    """Python's parser takes NaN and Infinity, which JSON lacks."""
    raise ValueError(f"it holds {name}")


def read(path: Path, kind: str, major: int, cls: type[T]) -> T:
    """The document at ``path``.

    Raises:
        DocumentError: it cannot be read, or is not such a document.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path} cannot be read: {_os_reason(error)}.") from error
    return loads(text, kind, major, cls, str(path))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to a temporary name beside ``path`` and rename it: whole or not at all.

    Raises:
        UsageError: the directory is missing, not writable, or the disk is full.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent or Path())
        # A lone half of a surrogate pair, which a server can send, is written as its escape.
        with os.fdopen(
            handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise UsageError(
            f"{path} cannot be written: {_os_reason(error)}.",
            "Nothing was written there; name another file with -o, or make room.",
        ) from error


def write(path: Path, kind: str, major: int, value: object) -> None:
    """Write a document, whole or not at all; see :func:`dumps` and :func:`write_text`."""
    write_text(path, dumps(kind, major, value))


def _os_reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
