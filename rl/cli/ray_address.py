"""Checks RAY_ADDRESS before Ray connects: Ray itself would wait for minutes and could not be interrupted."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from configs.errors import UserError

_SECONDS = 5.0  # for a connection, and for its first answer
_LOCAL = ("localhost", "127.0.0.1", "::1")
# what a client of HTTP/2, and so of gRPC, says first: the preface, then its settings (RFC 9113, section 3.4)
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4  # the type of the frame that a server answers with


def check_ray_address() -> None:
    """Raise UserError if no Ray answers where RAY_ADDRESS points."""
    address = os.environ.get("RAY_ADDRESS", "")
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UserError(f"RAY_ADDRESS = {address!r}: must be HOST:PORT, such as 10.0.0.5:6379, or unset") from None
    if not host or port is None:
        return  # "auto", "local", or unset: Ray looks on this machine and answers at once
    try:
        found = _is_ray(_seen_by_ray(host), port)
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS = {address!r}: nothing answers there ({error.strerror or error}); start the cluster, correct "
            "the address, or unset RAY_ADDRESS to run on this machine"
        ) from error
    if not found:
        raise UserError(
            f"RAY_ADDRESS = {address!r}: something listens there, but it is no Ray: the port of `ray start --head` is "
            "wanted, 6379 by default, not the dashboard's (8265); or unset RAY_ADDRESS to run on this machine"
        )


def _seen_by_ray(host: str) -> str:
    """The address that Ray connects to; for this machine, the one that other nodes use."""
    if host not in _LOCAL:
        return host
    import ray.util  # slow

    return ray.util.get_node_ip_address()


def _is_ray(host: str, port: int) -> bool:
    """Whether a gRPC server listens there. Raises OSError if nothing does."""
    with socket.create_connection((host, port), timeout=_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return True  # it says nothing in the clear
        try:
            connection.sendall(_HELLO)
            answer = connection.recv(9, socket.MSG_WAITALL)
        except OSError:  # silence, or a connection that is closed at once
            return False
    return len(answer) == 9 and answer[3] == _SETTINGS
