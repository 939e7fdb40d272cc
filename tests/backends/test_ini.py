"""A configuration file of llama.cpp is edited where it has to be, and nowhere else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.backends.ini import Key, held, with_values
from velollm_core.errors import UsageError

FILE = """\
# mine
threads = 3   ; not too many
[*]
host=127.0.0.1\r
t = 4
; [*] in a comment
no-mmap = on

[other]
threads = 9
"""
ALIASES = {"threads": Key("threads"), "t": Key("threads"), "no-mmap": Key("mmap", negative=True)}


def edit(text, **values):
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return with_values(
        text, "*", named, means=lambda key: ALIASES.get(key, Key(key)), others=("default",)
    )


def test_a_key_is_replaced_where_it_stands_whatever_it_is_called_there():
    expected = FILE.replace("= 3 ", "= 8 ").replace("t = 4", "t = 8").replace("= on", "= 0")
    assert edit(FILE, threads="8", mmap="1") == expected


def test_a_new_key_goes_behind_the_others_of_its_section():
    expected = FILE.replace("no-mmap = on\n", "no-mmap = on\nbatch-size = 64\n")
    assert edit(FILE, batch_size="64") == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[*]\nbatch-size = 64\n"),
        ("threads = 1", "threads = 1\n\n[*]\nbatch-size = 64\n"),
        ("[other]\r\nx = 1\r\n", "[other]\r\nx = 1\r\n\r\n[*]\r\nbatch-size = 64\r\n"),
        ("[*]", "[*]\nbatch-size = 64\n"),
        ("[*]\nx = 1\n\n# end\n", "[*]\nx = 1\nbatch-size = 64\n\n# end\n"),
        (
            "[*]\nbatch-size = 1\n[a]\n[*]\nx = 1",
            "[*]\nbatch-size = 64\n[a]\n[*]\nx = 1\nbatch-size = 64\n",
        ),
    ],
)
def test_what_is_not_there_is_made(before, after):
    assert edit(before, batch_size="64") == after


def test_a_key_is_taken_out_with_its_line():
    assert edit(FILE, threads=None) == FILE.replace("threads = 3   ; not too many\n", "").replace(
        "t = 4\n", ""
    )
    assert edit("", threads=None) == ""


def test_what_a_value_cannot_say_is_refused():
    with pytest.raises(UsageError, match=r"configuration file of llama\.cpp"):
        edit(FILE, path="a\n[*]\nhost = 0.0.0.0")


def read(text):
    """What counts in such a file, by the grammar of common/preset.cpp."""
    found, section = {"default": {}}, "default"
    for line in re.split(r"\r\n|\n|\r", text):
        heading = re.match(r"\[[ \t]*([^\]]+)\]", line)
        setting = re.fullmatch(r"([A-Za-z_][\w.-]*)[ \t]*=[ \t]*(.*)", line, re.ASCII | re.DOTALL)
        if heading:
            section = heading.group(1)
            found[section] = {}
        elif setting:
            value = re.split(r"[ \t]*(?:[;#]|\Z)", setting.group(2), maxsplit=1)[0]
            found[section][setting.group(1)] = value
    return found


LINES = st.one_of(
    st.sampled_from(
        ["[*]", "[ *]", "[* ]", "[default]", "[other]", "", "# comment", "; x = 1", "[*] # c"]
    ),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["a", "b", "c", "t", "threads"]),
        st.sampled_from(["=", " = ", "\t=\t"]),
        st.sampled_from(["1", "", "x y", "'q'", "a=b", "\u2028"]),
        st.sampled_from(["", " ", "  # comment", ";x"]),
    ),
)
FILES = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=12).map(
    lambda lines: "".join(line + ending for line, ending in lines)
)
WORDS = st.sampled_from(["1", "q8_0", "a b", "/x/y"])


@given(text=FILES)
def test_what_counts_is_what_llamacpp_takes(text):
    assert held(text) == read(text)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("a = 1 ; and why", {"default": {"a": "1"}}),
        ("a = 1;2", {"default": {"a": "1"}}),
        ("[*]\na = 1\n[x]\n[*]\nb = 2", {"*": {"b": "2"}, "x": {}}),
        ("[ \t*]\na = 1", {"*": {"a": "1"}}),
        (" \t; [*]\n\t\n", {}),
    ],
)
def test_a_file_is_read_by_llamacpps_grammar(text, counts):
    assert held(text) == {"default": {}} | counts


@pytest.mark.parametrize(
    "text",
    ["[*]\n a = 1", "[*]\na = 1\n b", "[*]\n[x] junk", "\n[*", "\na", "\n1 = 2", "\n\ufeffa = 1"],
)
def test_a_line_that_llamacpp_refuses_is_numbered(text):
    number = len(text.splitlines())
    with pytest.raises(ValueError, match=f"line {number} is no KEY = VALUE"):
        held(text)


@given(
    text=FILES, values=st.dictionaries(st.sampled_from("abc"), WORDS, min_size=1), cut=st.booleans()
)
def test_what_is_set_counts_and_everything_else_is_as_it_was(text, values, cut):
    text = text.rstrip("\r\n") if cut else text
    edited = with_values(text, "*", values, others=("default",))
    before, after = read(text), read(edited)
    for name, value in values.items():
        counting = {**after.get("*", {}), **after["default"]}
        assert counting[name] == value
    for section, keys in before.items():
        for name, value in keys.items():
            if name not in values or section not in {"*", "default"}:
                assert after[section][name] == value
    assert with_values(edited, "*", values, others=("default",)) == edited
    kept = [line for line in re.split(r"\r\n|\n|\r", text) if not re.match(r"[abc][ \t]*=", line)]
    left = re.split(r"\r\n|\n|\r", edited)
    for line in kept:
        assert line in left
