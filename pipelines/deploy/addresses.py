"""Addresses to listen on: names of this machine, and whether a port is free."""

from __future__ import annotations

import errno
import socket

from features.common.errors import Failure


class PortTaken(Failure):
    """The address cannot be listened on."""


def address_of(host: str) -> str:
    """Return the IP address of a host name: BentoML takes no names.

    Raises:
        PortTaken: the name is none of this machine.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise PortTaken(
            f"--host {host}: expected an address or a name of this machine, got none that is known ({error.strerror})"
        ) from error
    addresses = [str(entry[4][0]) for entry in found]
    return next((address for address in addresses if ":" not in address), addresses[0])


def require_free(host: str, port: int) -> None:
    """Refuse early what the server could not listen on.

    Raises:
        PortTaken: another process listens there, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(
                    f"expected port {port} on {host} to be free, another process listens there: end it, or name another"
                    " with --port"
                ) from error
            raise PortTaken(f"cannot listen on {host}, port {port}: {error.strerror}") from error
