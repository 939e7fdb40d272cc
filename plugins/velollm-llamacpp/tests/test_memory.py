from __future__ import annotations

import os
import re

import pytest

from velollm_core.backends.contract import Request
from velollm_core.backends.memory import memory_use
from velollm_core.config import Config

BREAKDOWN = re.compile(r"- Host +\| +(\d+) = +\d+ \+ +\d+ \+ +\d+")


@pytest.mark.engine
@pytest.mark.parametrize(
    "knobs",
    [
        {"context": 512, "slots": 1},
        {"context": 8192},
        {"context": 4096, "flash_attention": "off", "ubatch": 1024},
        {"context": 4096, "slots": 2, "kv_unified": False, "cache_type_k": "q8_0"},
    ],
    ids=str,
)
def test_the_estimate_covers_what_the_engine_plans_and_uses_and_not_much_more(
    backend, embedded, demo, start, knobs
):
    session = start(embedded, **knobs)
    list(session.generate(Request(prompt="word " * 100, max_tokens=4)))
    used = session.memory().rss_bytes
    planned = int(BREAKDOWN.search(session._child.log_path.read_text()).group(1)) * 2**20
    complete = backend.defaults(embedded, demo).config | Config(knobs)
    estimate = backend.footprint(embedded, demo, complete).host_bytes
    assert used <= estimate
    # The engine's own plan is without its process.
    assert planned <= estimate <= 1.3 * planned + 200 * 2**20


def test_memory_of_processes_that_are_gone_is_not_zero_but_unknown():
    assert memory_use((2**22 + 1,)) is None
    assert memory_use(()) is None
    assert memory_use((os.getpid(),)).rss_bytes > 0
