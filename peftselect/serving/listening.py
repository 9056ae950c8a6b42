"""The address of a server: claimed before any model is loaded, so that a port in use costs no wait."""

from __future__ import annotations

import socket

from peftselect.errors import InputError


def claim(host: str, port: int) -> socket.socket:
    """A socket bound to ``host`` and ``port`` that does not listen yet (0: any free port, see ``getsockname``).

    :raises InputError: ``host`` is no address of this machine, or ``port`` is in use or not allowed
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InputError(
            f"no such address: {host} ({error.strerror})", "--host 127.0.0.1, or 0.0.0.0 for all"
        ) from None
    claimed = socket.socket(family, kind, protocol)
    try:
        claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claimed.bind(address)
    except OSError as error:
        claimed.close()
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen at {host}:{port}: {reason}", "--port takes another port") from None
    return claimed
