"""The door: the socket at which guests attach and people give orders.

A UNIX socket in the abstract namespace, so that it dies with its hypervisor and leaves no file; one msgpack map a
message (SOCK_SEQPACKET), descriptors beside it.  Its name holds the user's id, and each side looks at the other's
credentials: only processes of the same user, or root, get in.  A guest keeps its connection for life: its closing tells
the hypervisor that the guest left, and the guest that the hypervisor is gone.
"""

import array
import os
import socket
import struct
from typing import Any

import msgpack

from shm.errors import HypervisorGone, UsageProblem
from shm.names import checked_cluster

MESSAGE_LIMIT = 128 << 10    # bytes of one message; below every kernel's default socket buffer
DEADLINE_S = 10.0


def _address(cluster: str, uid: int) -> str:
    return f"\0memcommons/{uid}/{checked_cluster(cluster)}"


def listen(cluster: str) -> socket.socket:
    """Open the door of `cluster`; UsageProblem when a living hypervisor has that name."""
    address = _address(cluster, os.geteuid())
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        door.bind(address)
    except OSError as error:
        door.close()
        raise UsageProblem(f"cluster name {cluster!r} is in use: choose another, or stop that cluster with "
                           f"`memcommons ctl {cluster} stop`") from error
    door.listen(64)
    door.setblocking(False)
    return door


def connect(cluster: str, timeout: float = DEADLINE_S) -> socket.socket:
    """Return a connection to `cluster`; UsageProblem when none is running."""
    for address, uid in [(_address(cluster, uid), uid) for uid in dict.fromkeys((os.geteuid(), 0))]:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        link.settimeout(timeout)
        try:
            link.connect(address)
        except OSError:
            link.close()
            continue
        if peer(link)[1] in (uid, 0):
            return link
        link.close()
    raise UsageProblem(f"no cluster {cluster!r} is running; start one with `memcommons serve --name {cluster} "
                       f"--budget 256MiB`")


def peer(link: socket.socket) -> tuple[int, int]:
    """Return (pid, uid) of the process at the other end."""
    pid, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def send(link: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    link.sendmsg([_packed(message)], ancillary)


def _packed(message: dict[str, Any]) -> bytes:
    """Return the bytes of a message; UsageProblem for what no message can say."""
    try:
        return msgpack.packb(message)
    except OverflowError as error:
        raise UsageProblem("a number is too large: 64 bits are the most that can be sent") from error
    except UnicodeEncodeError as error:
        raise UsageProblem(f"{error.object!r:.80} is not UTF-8 text, so it names nothing here") from error


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the next message and its descriptors; HypervisorGone at the end or when nothing comes."""
    try:
        data, ancillary, _, _ = link.recvmsg(MESSAGE_LIMIT, socket.CMSG_SPACE(8 * 4), socket.MSG_CMSG_CLOEXEC)
    except (TimeoutError, ConnectionError) as error:
        raise HypervisorGone(f"nothing comes through the door: {error}") from error
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[:len(content) - len(content) % fds.itemsize])
    try:
        message = msgpack.unpackb(data) if data else None
    except Exception:
        message = None
    if not isinstance(message, dict):
        for fd in fds:
            os.close(fd)
        raise HypervisorGone("the other end of the door is closed" if not data else "junk came through the door")
    return message, list(fds)
