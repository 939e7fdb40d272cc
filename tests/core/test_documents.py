"""Documents: whole and of the right kind, or refused in one sentence that names file and key."""

from __future__ import annotations

import json
import math
import sys
from enum import StrEnum

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.config import Config
from velollm_core.documents import dumps, loads, read, write
from velollm_core.errors import DocumentError, UsageError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@frozen(kw_only=True)
class Inner:
    ms: float
    count: int = 0
    colour: Colour = Colour.RED


@frozen(kw_only=True)
class Outer:
    name: str
    inner: tuple[Inner, ...] = ()
    config: Config = Config()
    on: bool = False
    extra: dict[str, int] = field(factory=dict)


def parse(text: str) -> Outer:
    return loads(text, "outer", 1, Outer, "f.json")


def document(**keys) -> str:
    return json.dumps({"schema": "velollm.outer/1", "name": "n"} | keys)


@given(
    st.builds(
        Outer,
        name=st.text(),
        inner=st.lists(
            st.builds(
                Inner,
                ms=st.floats(allow_nan=False, allow_infinity=False),
                count=st.integers(),
                colour=st.sampled_from(Colour),
            )
        ).map(tuple),
        config=st.dictionaries(
            st.text(min_size=1),
            st.booleans()
            | st.integers()
            | st.text()
            | st.floats(allow_nan=False, allow_infinity=False),
        ).map(Config),
        on=st.booleans(),
        extra=st.dictionaries(st.text(), st.integers()),
    )
)
def test_what_is_written_comes_back_with_its_types(value):
    back = parse(dumps("outer", 1, value))
    assert back == value
    assert all(type(entry.colour) is Colour for entry in back.inner)
    assert [type(v) for v in back.config.values()] == [type(v) for v in value.config.values()]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"nam": "x"}, "nam"),
        ({"on": 1}, "expected bool, got 1 @ $.on"),
        ({"name": 7}, "expected str, got 7 @ $.name"),
        ({"inner": [{"ms": "0.5"}]}, r"expected float, got '0.5' @ $.inner[0].ms"),
        ({"inner": [{"ms": 1, "count": True}]}, "expected int, got True @ $.inner[0].count"),
        ({"inner": [{}]}, "required key missing @ $.inner[0].ms"),
        ({"inner": [{"ms": 1, "colour": "green"}]}, "expected one of red, blue, got 'green'"),
        ({"config": {"a": [1]}}, "@ $.config"),
        ({"inner": [{"ms": 10**400}]}, "too large to convert to float @ $.inner[0].ms"),
        ({"inner": [{"ms": 1, "count": 10**400}]}, "float @ $.inner[0].count"),
        ({"config": {"a": 10**400}}, "too large to convert to float @ $.config"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_path(keys, told):
    with pytest.raises(DocumentError) as caught:
        parse(document(**keys))
    assert told in caught.value.message
    assert caught.value.message.startswith("f.json: ")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_not_read(number):
    with pytest.raises(DocumentError, match=f"^f.json is not JSON: it holds {number}.$"):
        parse(document().replace('"n"', number))


def test_a_number_beyond_any_float_is_refused_by_its_key():
    with pytest.raises(DocumentError) as caught:
        parse(document(inner=[{"ms": 1.5}]).replace("1.5", "-1e400"))
    assert caught.value.message == ("f.json: expected a finite number, got -inf @ $.inner[0].ms.")


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_document_as_deep_as_a_well_is_one_short_sentence(depth):
    with pytest.raises(DocumentError) as caught:
        parse(document().replace('"n"', "[" * depth + "]" * depth))
    assert caught.value.message.startswith("f.json")
    assert len(caught.value.message) < 100


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_json_lacks_is_named_and_nothing_is_written(number, tmp_path):
    target = tmp_path / "result.json"
    with pytest.raises(DocumentError) as caught:
        write(target, "outer", 1, Outer(name="n", inner=(Inner(ms=1.0), Inner(ms=number))))
    assert caught.value.message == (
        f"this outer document cannot be written as JSON: {number} @ $.inner[1].ms."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not JSON"),
        ("[1]", "no key 'schema'"),
        ('{"schema": "velollm.profile/1"}', "'profile' document, a 'outer' is needed"),
        ('{"schema": "velollm.outer/2"}', "reads velollm.outer/1"),
        ('{"schema": 5}', "no key 'schema'"),
    ],
)
def test_another_kind_of_file_is_refused_by_name(text, told):
    with pytest.raises(DocumentError) as caught:
        parse(text)
    assert told in caught.value.message


def test_a_file_that_is_not_there_or_not_text_is_one_sentence(tmp_path):
    with pytest.raises(DocumentError, match="No such file"):
        read(tmp_path / "none.json", "outer", 1, Outer)
    binary = tmp_path / "b.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DocumentError, match="cannot be read"):
        read(binary, "outer", 1, Outer)


def test_half_of_a_surrogate_pair_is_written_as_its_escape(tmp_path):
    target = tmp_path / "result.json"
    write(target, "outer", 1, Outer(name="\udc80"))
    assert read(target, "outer", 1, Outer).name == "\udc80"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a file size limit")
def test_a_full_disk_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path):
    import resource
    import signal

    target = tmp_path / "result.json"
    write(target, "outer", 1, Outer(name="old"))
    old = target.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UsageError, match="cannot be written") as caught:
            write(target, "outer", 1, Outer(name="x" * 100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "result.json" in caught.value.message
    assert target.read_bytes() == old
    assert list(tmp_path.iterdir()) == [target]
