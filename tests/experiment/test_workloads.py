"""The built-in workloads: fresh, the same everywhere, and of the size that they claim."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.experiment import workload_hooks
from velollm_core.experiment.workloads import scenes, tasks, words
from velollm_core.experiment.workloads.builtin import CHAT_TURNS, builtin_workloads
from velollm_core.experiment.workloads.drawing import Draw

WORKLOADS = {workload.name: workload for workload in builtin_workloads()}
GOLDEN = "59680756b029017071bf57a6a46551dde8ba74ea43608cfc2d885ff951244c32"

places = st.tuples(st.integers(0, 2**63), st.integers(0, 10_000), st.integers(-50, 10_000))


def text_of(messages):
    return "\n".join(message.content for message in messages)


def golden():
    prompts = [
        [[message.role, message.content] for message in workload.messages(seed, block, index)]
        for workload in builtin_workloads()
        for seed, block, index in [(0, 0, 0), (1, 2, 3), (2**40, 11, 999)]
    ]
    digests = [workload.digest for workload in builtin_workloads()]
    return hashlib.sha256(json.dumps([prompts, digests]).encode()).hexdigest()


def test_the_hook_offers_all_six_with_their_lengths():
    offered = {}
    workload_hooks.velollm_register_workloads(lambda w: offered.update({w.name: w.max_tokens}))
    assert offered == {
        "short": 50, "medium": 200, "code": 150, "rewrite": 300, "summarize": 64, "chat": 100,
    }  # fmt: skip


def test_workloads_say_what_speculation_and_caches_live_on():
    assert [name for name, w in WORKLOADS.items() if w.repeats_input] == ["rewrite"]
    assert [name for name, w in WORKLOADS.items() if w.reuses_prefix] == ["chat"]
    assert all(w.group == (CHAT_TURNS if name == "chat" else 1) for name, w in WORKLOADS.items())


@pytest.mark.parametrize("name", WORKLOADS)
def test_ten_thousand_requests_are_all_fresh_from_their_first_tokens_on(name):
    workload = WORKLOADS[name]
    heads = {
        workload.messages(seed, block, index * workload.group)[0].content[:60]
        for seed in range(10)
        for block in range(10)
        for index in range(100)
    }
    assert len(heads) == 10_000


@pytest.mark.parametrize("name", WORKLOADS)
@given(one=places, two=places)
def test_a_prompt_depends_on_seed_block_and_index_and_on_nothing_else(name, one, two):
    messages = WORKLOADS[name].messages
    assert messages(*one) == messages(*one)
    assert (messages(*one) == messages(*two)) == (one == two)


def test_prompts_are_the_recorded_ones():
    """Where this fails the texts have changed: results of before cannot be compared any more."""
    assert golden() == GOLDEN


def test_prompts_do_not_depend_on_the_process():
    digest = "from velollm_core.experiment.workloads.builtin import builtin_workloads as b\n"
    digest += "print(*[w.digest for w in b()], b()[2].messages(5, 6, 7)[0].content, sep='|')"
    seen = {
        subprocess.run(
            [sys.executable, "-c", digest],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("name", "shortest", "longest"),
    [
        ("short", 250, 500),
        ("medium", 300, 600),
        ("code", 300, 600),
        ("rewrite", 550, 900),
        ("summarize", 2700, 3500),
    ],
)
def test_prompts_have_the_size_of_their_kind(name, shortest, longest):
    sizes = [len(text_of(WORKLOADS[name].messages(3, 0, index))) for index in range(500)]
    assert shortest <= min(sizes) <= max(sizes) <= longest


@pytest.mark.parametrize("name", WORKLOADS)
def test_texts_are_whole_sentences(name):
    for index in range(300):
        text = text_of(WORKLOADS[name].messages(9, 1, index))
        assert not re.search(r"[{}]|\b[Aa] [aeiou]|  |\.\.", text), text
        assert all(re.match(r'^[A-Z0-9"]', line) for line in text.split("\n") if line), text


def test_a_chat_grows_by_a_reply_and_a_question_a_turn():
    messages = WORKLOADS["chat"].messages
    for conversation in range(20):
        first = conversation * CHAT_TURNS
        turns = [messages(1, 0, first + turn) for turn in range(CHAT_TURNS)]
        for turn, prompt in enumerate(turns):
            assert len(prompt) == 2 * turn + 1
            assert [message.role for message in prompt[::2]] == ["user"] * (turn + 1)
            assert [message.role for message in prompt[1::2]] == ["assistant"] * turn
            assert turn == 0 or prompt[:-2] == turns[turn - 1]


def test_a_rewrite_asks_for_a_word_that_is_there_and_another_that_is_not():
    for index in range(200):
        task, _, text = WORKLOADS["rewrite"].messages(4, 0, index)[0].content.partition("\n\n")
        new, old = re.search(r"write (\w+) instead of (\w+),", task).groups()
        assert old in text
        assert new not in text


def test_every_template_can_be_filled():
    slots = set(words.FILLERS) | set(words.NUMBERS)
    slots |= {"first", "name", "job", "town", "other", "other_job"}
    templates = [*scenes.OPENINGS, *(line for scene in scenes.SCENES.values() for line in scene)]
    templates += [*tasks.SHORT, *tasks.MEDIUM, *tasks.SUMMARIZE, *tasks.FOLLOW_UPS, *tasks.REPLIES]
    for template in templates:
        assert set(re.findall(r"{(\w*)}", template)) <= slots, template


@pytest.mark.parametrize(
    ("module", "table"), [(words, "TOWNS"), (scenes, "OPENINGS"), (tasks, "MEDIUM")]
)
def test_the_digest_changes_with_the_text(module, table, monkeypatch):
    monkeypatch.setattr(module, table, (*getattr(module, table)[:-1], "{name} sings."))
    changed = {workload.name: workload.digest for workload in builtin_workloads()}
    assert all(changed[name] != WORKLOADS[name].digest for name in WORKLOADS)
    assert len(set(changed.values())) == len(WORKLOADS)


@given(parts=st.lists(st.integers(), max_size=4), low=st.integers(-9, 9), width=st.integers(0, 50))
def test_drawn_numbers_stay_within_their_ends(parts, low, width):
    draw = Draw(*parts)
    assert all(low <= draw.number(low, low + width) <= low + width for _ in range(50))


@given(seed=st.integers(), size=st.integers(2, 30), count=st.integers(0, 30))
def test_some_are_different_and_keep_their_order(seed, size, count):
    draw = Draw(seed)
    chosen = draw.some(range(size), min(count, size))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, size)
    assert len(set(draw.two(range(size)))) == 2
