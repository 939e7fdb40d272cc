"""Which processes a server of this machine is, where that can be seen."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from velollm_core.backends.local import is_local, listeners
from velollm_core.testing.raw_server import RawServer

LISTEN = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listening():
    """Starts processes that listen at an address; gives their pid and port."""
    children = []

    def start(address: str, port: int = 0) -> tuple[int, int]:
        words = [sys.executable, "-c", LISTEN, address, str(port)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        child = subprocess.Popen(words, text=True, **pipes)
        children.append(child)
        told = child.stdout.readline()
        if not told:
            pytest.skip(f"nothing can listen at {address} here")
        return child.pid, int(told)

    try:
        psutil.net_connections("tcp")
    except psutil.Error:  # macOS tells only root
        pytest.skip("this system does not say who listens")
    yield start
    for child in children:
        with child:
            child.kill()


def pids(url: str) -> list[int]:
    return [process.pid for process in listeners(url)]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_in_another_process_is_found_by_its_address(listening, address, host):
    pid, port = listening(address)
    assert pids(f"http://{host}:{port}/v1") == [pid]


def test_a_server_at_the_same_port_of_another_address_is_another_one(listening):
    pid, port = listening("127.0.0.1")
    other, _ = listening("127.0.0.3", port)
    assert pids(f"http://127.0.0.1:{port}") == [pid]
    assert other not in pids(f"http://localhost:{port}")
    assert pids(f"http://[::1]:{port}") == []


def test_where_one_listens_at_the_address_itself_it_gets_the_requests(monkeypatch):
    def entry(pid, address):
        at = SimpleNamespace(ip=address, port=80)
        return SimpleNamespace(pid=pid, status=psutil.CONN_LISTEN, laddr=at)

    table = [entry(1, "0.0.0.0"), entry(2, "127.0.0.1"), entry(3, "::"), entry(4, "10.0.0.1")]
    monkeypatch.setattr(psutil, "net_connections", lambda _: table)
    monkeypatch.setattr(psutil, "Process", lambda pid: SimpleNamespace(pid=pid))
    assert pids("http://127.0.0.1:80") == [2]
    assert pids("http://[::1]:80") == [3]
    assert pids("http://localhost:80") == [2, 3]


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
