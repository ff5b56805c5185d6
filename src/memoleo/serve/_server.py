"""Serving the site by itself, until it is stopped."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from memoleo.serve._gate import LOOPBACK

try:
    import uvicorn
except ImportError as error:
    raise ImportError("The dashboard needs uvicorn: pip install 'memoleo[serve]'") from error

__all__ = ["address_of", "is_loopback", "listen", "run"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 takes a free one.

    Raises
    ------
    OSError
        the port is taken, or the address isn't one of this machine
    """
    family, *_, place = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(place[:2], family=family, backlog=128)


def address_of(listening: socket.socket) -> str:
    """Return the URL under which the socket can be asked on this machine."""
    host, port = listening.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def run(app: Any, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; requests under way get two seconds to end."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        http="h11",
        loop="asyncio",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=64,
    )
    uvicorn.Server(config).run(sockets=[listening])
