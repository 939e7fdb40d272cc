"""Which processes a server of this machine is, where that can be seen."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from velollm_core.backends.local import is_local, listeners
from velollm_core.testing.raw_server import RawServer

LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_a_server_in_another_process_is_found_by_its_port():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LISTEN], text=True, **pipes) as child:
        port = int(child.stdout.readline())
        found = listeners(f"http://127.0.0.1:{port}/v1")
        if not found:
            with pytest.raises(psutil.Error):
                psutil.net_connections("tcp")  # macOS tells only root
            pytest.skip("this system does not say who listens")
        assert child.pid in [process.pid for process in found]
        child.stdin.close()


def test_this_process_is_not_its_own_server():
    server = RawServer(lambda *_: None)
    assert listeners(server.url) == ()
    server.close()


@pytest.mark.parametrize("url", ["http://example.org:80", "http://10.0.0.1:8000", "http://[::1]"])
def test_elsewhere_and_without_a_port_nothing_is_looked_for(url):
    assert listeners(url) == ()


def test_loopback_has_several_names():
    assert all(map(is_local, ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1")))
    assert not is_local("http://127.0.0.1.example.org:1")
