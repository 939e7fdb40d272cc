"""The six workloads that VeloLLM brings: pure functions from (seed, block, index) to messages.

Every prompt names an invented person or place at once, so that two requests part within their first
tokens and no prompt cache serves one with the other's prefix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from velollm_core.backends.contract import Message
from velollm_core.experiment.spec import Workload
from velollm_core.experiment.workloads import scenes, tasks, words
from velollm_core.experiment.workloads.drawing import Draw

CHAT_TURNS = 4
_PROBES = 8


def builtin_workloads() -> tuple[Workload, ...]:
    """The workloads ``short``, ``medium``, ``code``, ``rewrite``, ``summarize`` and ``chat``."""
    return (
        _workload("short", "a few sentences and a question, brief answer", 50, _single(_short)),
        _workload("medium", "a few sentences and a writing task", 200, _single(_medium)),
        _workload("code", "a Python function from a description", 150, _single(_code)),
        _workload(
            "rewrite",
            "repeat a text with one word changed",
            300,
            _single(_rewrite),
            repeats_input=True,
        ),
        _workload("summarize", "a long text, brief summary", 64, _single(_summarize)),
        _workload(
            "chat",
            f"conversations of {CHAT_TURNS} turns, each prompt holding the turns before it",
            100,
            _chat,
            group=CHAT_TURNS,
            reuses_prefix=True,
        ),
    )


class _Story(dict[str, str]):
    """Slots of one text: the people and the place are fixed, all others are drawn at each use."""

    def __init__(self, draw: Draw) -> None:
        first, other = draw.two(words.FIRST_NAMES)
        job, other_job = draw.two(words.JOBS)
        super().__init__(
            first=first,
            name=f"{first} {draw.pick(words.SURNAMES)}",
            job=job,
            town=draw.pick(words.TOWNS),
            other=other,
            other_job=other_job,
        )
        self.draw = draw

    def __missing__(self, slot: str) -> str:
        if slot in words.NUMBERS:
            return str(self.draw.number(*words.NUMBERS[slot]))
        return self.draw.pick(words.FILLERS[slot])

    def fill(self, template: str) -> str:
        return template.format_map(self)

    def opening(self) -> str:
        return self.fill(self.draw.pick(scenes.OPENINGS))

    def scene(self, sentences: int) -> str:
        return self.part(self.draw.pick(tuple(scenes.SCENES)), sentences)

    def part(self, scene: str, sentences: int) -> str:
        return " ".join(map(self.fill, self.draw.some(scenes.SCENES[scene], sentences)))


def _single(text: Callable[[_Story], str]) -> Callable[[str, int, int, int], tuple[Message, ...]]:
    def messages(name: str, seed: int, block: int, index: int) -> tuple[Message, ...]:
        story = _Story(Draw(name, seed, block, index))
        return (Message(role="user", content=text(story)),)

    return messages


def _short(story: _Story) -> str:
    return f"{story.opening()} {story.scene(3)}\n\n{story.fill(story.draw.pick(tasks.SHORT))}"


def _medium(story: _Story) -> str:
    return f"{story.opening()} {story.scene(4)}\n\n{story.fill(story.draw.pick(tasks.MEDIUM))}"


def _code(story: _Story) -> str:
    draw = story.draw
    records, keys, values = draw.pick(tasks.RECORDS)
    verb, what = draw.pick(tasks.OPERATIONS)
    story.update(records=records, key=draw.pick(keys), value=draw.pick(values))
    constraints = " ".join(map(story.fill, draw.some(tasks.CONSTRAINTS, 2)))
    return (
        f"{story.opening()} All {records} are kept in a list of dictionaries with the keys "
        f"{', '.join(f'`{key}`' for key in (*keys, *values))}.\n\nWrite a Python function "
        f"`{verb}_{records}` that {story.fill(what)}. {constraints}"
    )


def _rewrite(story: _Story) -> str:
    text = f"{story.opening()} {story.scene(7)}"
    others = [town for town in words.TOWNS if town != story["town"]]
    story.update(old=story["town"], new=story.draw.pick(others))
    return f"{story.fill(tasks.REWRITE)}\n\n{text}"


def _summarize(story: _Story) -> str:
    chosen = story.draw.some(tuple(scenes.SCENES), 5)
    paragraphs = "\n\n".join(story.part(scene, 8) for scene in chosen)
    return f"{story.opening()} {paragraphs}\n\n{story.fill(story.draw.pick(tasks.SUMMARIZE))}"


def _chat(name: str, seed: int, block: int, index: int) -> tuple[Message, ...]:
    conversation, turn = divmod(index, CHAT_TURNS)
    story = _Story(Draw(name, seed, block, conversation))
    said = [f"{story.opening()} {story.scene(3)} {story.fill(story.draw.pick(tasks.FOLLOW_UPS))}"]
    for _ in range(turn):
        said.append(f"{story.fill(story.draw.pick(tasks.REPLIES))} {story.scene(4)}")
        said.append(f"{story.scene(1)} {story.fill(story.draw.pick(tasks.FOLLOW_UPS))}")
    return tuple(
        Message(role="assistant" if position % 2 else "user", content=text)
        for position, text in enumerate(said)
    )


def _workload(
    name: str,
    summary: str,
    max_tokens: int,
    texts: Callable[[str, int, int, int], tuple[Message, ...]],
    *,
    group: int = 1,
    repeats_input: bool = False,
    reuses_prefix: bool = False,
) -> Workload:
    def messages(seed: int, block: int, index: int) -> tuple[Message, ...]:
        return texts(name, seed, block, index)

    return Workload(
        name=name,
        summary=summary,
        max_tokens=max_tokens,
        messages=messages,
        digest=_digest(messages),
        group=group,
        repeats_input=repeats_input,
        reuses_prefix=reuses_prefix,
    )


def _digest(messages: Callable[[int, int, int], tuple[Message, ...]]) -> str:
    """A hash of all words and templates, and of some prompts, which show what the code does."""
    tables = [
        {name: value for name, value in vars(module).items() if name.isupper()}
        for module in (words, scenes, tasks)
    ]
    probes = [[message.content for message in messages(0, 0, index)] for index in range(_PROBES)]
    return hashlib.sha256(json.dumps([tables, probes]).encode()).hexdigest()
