"""Where a server listens: the options --host and --port."""

from __future__ import annotations

import ipaddress
import socket

from kdtw_jax.errors import UserError

_BACKLOG = 1024  # connections that wait to be taken


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; who connects waits until the server is ready.

    Args:
      host: name or number.
      port: 0: any.

    Raises:
      UserError: it cannot be had.
    """
    if not 0 <= port < 1 << 16:
        raise UserError(f"--port is {port}; it has to be from 0 to 65535")
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)  # from now on nobody else has it
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UserError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; take another --port or --host"
        ) from error
    return listening


def names_of(host: str) -> tuple[str, ...]:
    """The names by which clients may call a server at a host: those of this machine where it alone reaches that.

    Args:
      host: name or number. A page in a browser may call a name of its own that leads here; it is not answered.
    """
    if not is_loopback(host):
        return ("*",)
    return ("localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host)


def is_loopback(host: str) -> bool:
    """Whether this machine alone reaches a host.

    Args:
      host: name or number.
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
