"""What ``--prompts FILE`` takes, and what it says about a file that it does not."""

from __future__ import annotations

import json

import pytest

from velollm_core.backends.contract import Message
from velollm_core.errors import UsageError
from velollm_core.experiment.workloads.prompt_file import from_file


@pytest.fixture
def load(tmp_path):
    def load(content, name="mine.jsonl", max_tokens=77):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return from_file(path, max_tokens=max_tokens)

    return load


def user(text):
    return (Message(role="user", content=text),)


def test_a_text_file_has_one_prompt_a_line(load):
    workload = load("\ufeffFirst one.\r\n\r\n  Zweite, größer. \nthird", "mine.txt")
    found = [workload.messages(0, 0, index) for index in range(3)]
    assert found == [user("First one."), user("Zweite, größer."), user("third")]
    assert (workload.name, workload.max_tokens) == ("mine.txt", 77)
    assert workload.summary == "3 prompts of the user's own"


def test_jsonl_takes_prompts_and_conversations(load):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "How far is it?"},
    ]
    workload = load(
        json.dumps({"prompt": "One\ntwo", "max_tokens": 9})
        + "\n\n"
        + json.dumps({"messages": turns})
    )
    assert workload.messages(3, 4, 0) == user("One\ntwo")
    assert workload.messages(3, 4, 1) == tuple(Message(**turn) for turn in turns)
    assert workload.max_tokens == 9


def test_prompts_come_again_when_they_run_out(load):
    workload = load("a\nb\na\n", "p.txt")
    assert [workload.messages(0, 1, i)[0].content for i in range(-1, 5)] == list("aabaab")


def test_the_digest_is_of_the_prompts_not_of_the_file_name(load):
    assert (
        load("a\nb", "x.txt").digest == load('{"prompt": "a"}\n{"prompt": "b"}', "y.jsonl").digest
    )
    assert load("a\nb", "x.txt").digest != load("a\nc", "x.txt").digest
    assert load("a\nb", "x.txt").digest != load("ab", "x.txt").digest


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("", ["holds no prompt"]),
        ("\n \n", ["holds no prompt"]),
        (b"\xff\xfe\x00", ["cannot be read", "UTF-8"]),
        ('{"prompt": "a"}\n{"prompt": ', ["line 2", "is not JSON"]),
        ('\n["a"]', ["line 2", '"prompt" or "messages"']),
        ('{"text": "a"}', ["line 1", '"prompt" or "messages"']),
        ('{"prompt": "a", "messages": []}', ["line 1", "either"]),
        ('{"prompt": "a", "system": "b"}', ["line 1", "unknown key 'system'", "max_tokens"]),
        ('{"prompt": 7}', ["line 1", "prompt must be text", "7"]),
        ('{"prompt": " "}', ["line 1", "prompt must be text"]),
        ('{"prompt": "a", "max_tokens": "9"}', ["line 1", "max_tokens", "'9'"]),
        ('{"prompt": "a", "max_tokens": true}', ["line 1", "max_tokens", "True"]),
        ('{"prompt": "a", "max_tokens": 0}', ["line 1", "max_tokens", "above 0"]),
        (
            '{"prompt": "a", "max_tokens": 1}\n{"prompt": "b", "max_tokens": 2}',
            ["max_tokens", "1, 2", "--max-tokens"],
        ),
        ('{"messages": []}', ["line 1", "messages", "at least one"]),
        ('{"messages": ["a"]}', ["line 1", "messages[0]", '"role" and "content"']),
        ('{"messages": [{"role": "user"}]}', ["line 1", "messages[0]"]),
        (
            '{"messages": [{"role": "tool", "content": "a"}]}',
            ["messages[0].role", "'tool'", "user"],
        ),
        ('{"messages": [{"role": ["a"], "content": "a"}]}', ["messages[0].role", "['a']"]),
        ('{"messages": [{"role": "user", "content": null}]}', ["messages[0].content", "None"]),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', ["'assistant'", "user's turn"]),
    ],
)
def test_a_bad_file_gives_one_sentence_that_names_the_place(load, content, fragments):
    with pytest.raises(UsageError) as caught:
        load(content)
    assert "mine.jsonl" in caught.value.message
    assert "\n" not in caught.value.message
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UsageError, match=r"cannot be read: .+\."):
            from_file(path, max_tokens=5)
