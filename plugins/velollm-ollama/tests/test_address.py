"""OLLAMA_HOST is read as Ollama reads it; what is no address is refused with how to write one."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_ollama.address import base_url

from velollm_core.backends.http import HttpClient
from velollm_core.errors import UsageError


# The cases of Ollama's own test, envconfig/config_test.go, without those that name a path of "/".
@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("http://1.2.3.4", "http://1.2.3.4:80"),
        ("https://1.2.3.4", "https://1.2.3.4:443"),
        ("https://1.2.3.4:1234", "https://1.2.3.4:1234"),
        ("http://1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("https://example.com/ollama", "https://example.com:443/ollama"),
        ("example.com/ollama", "http://example.com:11434/ollama"),
        ("example.com:1234/", "http://example.com:1234"),
        ("localhost:66000", "http://localhost:11434"),
        ("localhost:-1", "http://localhost:11434"),
        (f"localhost:{'9' * 5000}", "http://localhost:11434"),
        ("localhost:http", "http://localhost:11434"),
        ("https://localhost:66000", "https://localhost:443"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:1337", "http://[::1]:1337"),
        ("http://[::1]:1337", "http://[::1]:1337"),
        (' "1.2.3.4" ', "http://1.2.3.4:11434"),
        ("'1.2.3.4'", "http://1.2.3.4:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("http://", "http://127.0.0.1:80"),
        ("http://0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("::", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
    ],
)
def test_every_form_that_ollama_takes_leads_to_the_same_place(text, url):
    assert base_url(text, "OLLAMA_HOST") == url
    assert HttpClient(url).url == url


@pytest.mark.parametrize(
    "text",
    [
        "ftp://1.2.3.4",
        "user:secret@host",
        "http://user@host:1",
        "ho st",
        "a..b",
        "host\x1b]0;owned\x07",
        "host;rm -rf",
        "$(reboot)",
        "host/é",
        "http://host/?key=secret",
        "host/a#secret",
        "1.2.3.4:80:90",
    ],
)
def test_what_is_no_address_is_refused_with_how_to_write_one(text):
    with pytest.raises(UsageError) as caught:
        base_url(text, "-X host")
    assert caught.value.message.startswith("-X host names no server")
    assert "HOST:PORT" in caught.value.hint
    assert caught.value.message.isprintable()
    assert "secret" not in str(caught.value)


WRITTEN = st.one_of(
    st.text(max_size=30),
    st.text("ab1.:/[]@-_ \"'$;%\\\n\x00é", max_size=30),
    st.builds(
        "{}://{}:{}/{}".format,
        st.sampled_from(["http", "https", "HTTP", "ftp"]),
        st.text("ab1.:[]@-$; ", max_size=12),
        st.text("0123456789-x", max_size=6),
        st.text("ab/@?#;$ ", max_size=6),
    ),
)


@given(WRITTEN)
def test_whatever_is_written_becomes_the_host_that_it_names_or_is_refused(text):
    try:
        parts = urlsplit(base_url(text, "OLLAMA_HOST"))
    except UsageError:
        return
    assert parts.scheme in {"http", "https"}
    assert parts.hostname in {"127.0.0.1", "::1"} or parts.hostname in text.lower()
    assert re.fullmatch(r"[\w.-]+|[0-9a-f:.]+(%\w+)?", parts.hostname)
    assert 0 <= parts.port <= 65535
    assert (parts.username, parts.password) == (None, None)
    assert (parts.query, parts.fragment) == ("", "")
