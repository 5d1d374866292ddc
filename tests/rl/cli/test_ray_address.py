"""A wrong RAY_ADDRESS is told within seconds, whatever listens there."""

import http.server
import socket
import threading
import time

import pytest

from configs.errors import UserError
from rl.cli import ray_address
from rl.cli.ray_address import check_ray_address


@pytest.fixture(autouse=True)
def _this_machine(monkeypatch):
    monkeypatch.setattr(ray_address, "_seen_by_ray", lambda host: host)
    monkeypatch.setattr(ray_address, "_SECONDS", 1.0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


def serve(answer):
    """A server that says `answer` to each connection and then nothing; its address."""
    server = socket.create_server(("127.0.0.1", 0))
    kept = []

    def loop():
        while True:
            connection, _ = server.accept()
            kept.append(connection)
            connection.sendall(answer)

    threading.Thread(target=loop, daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_nobody_there_is_told_at_once(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match="nothing answers there"):
            check_ray_address()
    assert time.monotonic() - began < 5


def test_no_address_passes(monkeypatch):
    check_ray_address()
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    check_ray_address()


def test_a_server_of_grpc_passes(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", serve(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])))
    check_ray_address()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", bytes(9)])
def test_something_else_there_is_told(monkeypatch, answer):
    """Silence, too: Ray would wait for two minutes."""
    monkeypatch.setenv("RAY_ADDRESS", serve(answer))
    began = time.monotonic()
    with pytest.raises(UserError, match="it is no Ray: the port of `ray start --head` is wanted"):
        check_ray_address()
    assert time.monotonic() - began < 5


def test_a_server_of_pages_is_told(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.server_port}")
        with pytest.raises(UserError, match="no Ray"):
            check_ray_address()
        server.shutdown()


def test_a_port_that_is_none(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "host:port")
    with pytest.raises(UserError, match="must be HOST:PORT"):
        check_ray_address()
