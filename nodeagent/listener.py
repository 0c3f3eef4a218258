"""The listening socket: made here and handed to libzmq, so that two of them can share the port while the node's key is changed.

One CURVE socket has one key. For a change of key a second one listens at the same port (SO_REUSEPORT), and a program of one
instruction has the kernel give it every new connection; open ones stay where they are. On Linux since 4.5.
"""

import os
import socket
import struct
import time
from array import array
from typing import Tuple

BACKLOG = 256
CLOSED_S = 2.0
_REUSEPORT_CBPF = 51                                          # asm-generic/socket.h; not named by Python
_RETURN = 0x06                                                # BPF_RET | BPF_K


def listen(endpoint: str, *, shared: bool) -> int:
    """A descriptor that listens at `tcp://host:port` ('*': any). Whoever takes it closes it. Raises OSError.

    `shared` only beside one that is shared already: else a second agent could take a port that is in use.
    """
    family, address = _address(endpoint)
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
        made.listen(BACKLOG)
        return made.detach()
    except OSError as failed:
        made.close()
        raise OSError(failed.errno, f"{endpoint}: {os.strerror(failed.errno or 0)}") from None


def share(listening: int) -> None:
    """Let another of this user's sockets listen at the same port. Raises OSError."""
    with _borrowed(listening) as borrowed:
        borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def steer(listening: int, position: int) -> None:
    """Of those that share the port, the one that came `position`-th (from 0) gets every new connection. Raises OSError."""
    code = array("B", struct.pack("HBBI", _RETURN, 0, 0, position))
    with _borrowed(listening) as borrowed:
        borrowed.setsockopt(socket.SOL_SOCKET, _REUSEPORT_CBPF, struct.pack("HL", 1, code.buffer_info()[0]))


def identity(listening: int) -> int:
    return os.fstat(listening).st_ino


def await_closed(listening: int, known: int) -> None:
    """libzmq closes what it was given a moment after its socket was closed: until then it counts among those that share the port.

    `known` is its `identity`: the number may be another file's by now.
    """
    deadline = time.monotonic() + CLOSED_S
    while time.monotonic() < deadline:
        try:
            if identity(listening) != known:
                return
        except OSError:
            return
        time.sleep(0.001)


def _borrowed(listening: int) -> socket.socket:
    return socket.socket(fileno=os.dup(listening))


def _address(endpoint: str) -> Tuple[int, tuple]:
    host, _, port = endpoint[len("tcp://"):].rpartition(":")
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(
            None if host == "*" else host, 0 if port in ("*", "!") else int(port), socket.AF_INET if host == "*" else 0,
            socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    except ValueError:
        raise OSError(22, f"{endpoint} names no port") from None
    except socket.gaierror as failed:
        raise OSError(22, f"{endpoint}: {failed.strerror}") from None
    return found[0][0], found[0][4]
