"""A relay stands before servers of this machine only."""

from __future__ import annotations

import pytest

from velollm_core.backends.http import HttpClient
from velollm_core.testing.conformance import Facts
from velollm_core.testing.conformance.under_test import UnderTest
from velollm_core.testing.fakes import FakeBackend
from velollm_core.testing.raw_server import answer
from velollm_core.testing.relay import Relay


def test_a_relay_passes_what_it_is_given(velollm_raw_server):
    server = velollm_raw_server(lambda connection, _: answer(connection, b"[1]"))
    with Relay(server.url) as relay:
        assert relay.url != server.url
        assert HttpClient(relay.url).get("/") == [1]


def test_no_relay_stands_in_a_secure_line():
    with pytest.raises(ValueError, match="not an http:// URL"):
        Relay("https://127.0.0.1:8000")


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000", "https://127.0.0.1:8000", ""])
def test_a_key_for_another_machine_is_not_lured_through_a_relay(tmp_path, url):
    facts = Facts(backend=FakeBackend(), mode="attach", url_option="url", options={"url": url})
    under_test = UnderTest(facts, tmp_path)
    skipped = pytest.raises(pytest.skip.Exception, match="backends may trust it with a key")
    with skipped, under_test.fragile():
        pass
    assert facts.backend.sessions == []
