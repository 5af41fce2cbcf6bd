"""Guests that lie: attached like any other, and then bound by nothing; and what they must not get at.

    Peer     a guest without a library, of a running machine
    Stage    a liar and an honest guest, on a machine that stands still
"""

import os
import select
import socket
from time import monotonic
from typing import Any

import msgpack
import numpy as np
import posix_ipc

from shm import door, names
from shm.abi import ABI_VERSION, PAGE_SIZE, Op, Reply, Status, decode_reply
from shm.arena import SharedObject
from shm.channel import open_queue
from shm.transfer import Transfer

OID = (1, 2, 3)
DEADLINE_S = 20.0            # of every wait; reached only by a test that fails
ATTACH = {"call": "attach", "abi": ABI_VERSION, "name": "liar", "pages": 16, "max_pages": 16, "weight": 1}


class Peer:
    """A guest without a library.  Its queues block nobody; what it writes into its objects is its own affair."""

    def __init__(self, cluster: str, **changed: Any) -> None:
        self.link = door.connect(cluster)
        try:
            self.reply, fds = ask(self.link, ATTACH | changed)
        except BaseException:
            self.link.close()
            raise
        self.stem = self.reply["stem"]
        self.ram, self.usage, self.content, buffer, self.count = (SharedObject(fd) for fd in fds)
        self.requests, self.replies = open_queue(f"{self.stem}.req"), open_queue(f"{self.stem}.rep")
        self.buffer = buffer
        self.transfer = Transfer(buffer.map())

    def send(self, message: bytes) -> None:
        """Send bytes; wait for room in the queue, as a patient liar does."""
        _wait(self.requests, select.POLLOUT, "nobody takes requests")
        self.requests.send(message)

    def answer(self) -> Reply:
        _wait(self.replies, select.POLLIN, "no reply")
        return decode_reply(self.replies.receive()[0])

    def ask(self, message: bytes) -> Reply:
        self.send(message)
        return self.answer()

    def call(self, op: int, *arguments: Any, seq: int = 1) -> Reply:
        """Make a call whose numbers nobody has checked."""
        return self.ask(msgpack.packb([seq, op, *arguments]))

    def lock(self) -> posix_ipc.Semaphore:
        return posix_ipc.Semaphore(f"/{self.stem}.lock")

    def is_cut_off(self) -> bool:
        """Wait until the hypervisor has closed its end; say whether it did."""
        ends = select.poll()
        ends.register(self.link.fileno(), select.POLLIN)
        return bool(ends.poll(DEADLINE_S * 1000)) and self.link.recv(1) == b""

    def close(self) -> None:
        for held in (self.ram, self.usage, self.content, self.buffer, self.count):
            held.close()
        for queue in (self.requests, self.replies):
            queue.close()
        self.link.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait(queue: posix_ipc.MessageQueue, what: int, complaint: str) -> None:
    room = select.poll()
    room.register(queue.mqd, what)
    assert room.poll(DEADLINE_S * 1000), complaint


def ask(link: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> tuple[dict[str, Any], list[int]]:
    """Say one thing at the door; return the answer and the descriptors with it."""
    door.send(link, message, fds)
    return door.receive(link)


def write_entries(transfer: Transfer, rows: list[tuple[int, int, tuple[int, int, int], int, int]]) -> int:
    """Write a multicall's entries (op, pool, oid, index, slot); return how many."""
    for at, (op, pool, oid, index, slot) in enumerate(rows):
        transfer.entries[at] = (op, pool, oid, index, slot, *[0] * 6)
    return len(rows)


def statuses(transfer: Transfer, count: int) -> list[int]:
    return transfer.entries["status"][:count].tolist()


def flood(peer: Peer, most: int = 10_000) -> int:
    """Ask and never listen, until the queue stays full or the hypervisor hangs up; return how many were sent."""
    message, until = msgpack.packb([1, int(Op.PING)]), monotonic() + DEADLINE_S
    for sent in range(most):
        while True:
            try:
                peer.requests.send(message)
                break
            except posix_ipc.BusyError:
                if _hung_up(peer.link):
                    return sent
            assert monotonic() < until, "still connected, and nobody takes requests"
    return most


def _hung_up(link: socket.socket) -> bool:
    ends = select.poll()
    ends.register(link.fileno(), select.POLLIN)
    return bool(ends.poll(10))


def touch_holes(fd: int, pages: int) -> int:
    """Take frames behind the hypervisor's back, by reading holes through a mapping; return how many there are now."""
    seen = SharedObject(os.dup(fd))
    try:
        int(np.asarray(seen.map(writable=False))[:pages * 4096:4096].sum())
        return seen.resident()
    finally:
        seen.close()


def refusal(cluster: str, **changed: Any) -> str:
    """Ask for what is refused; return the line that says so."""
    with door.connect(cluster) as link:
        answer, fds = ask(link, ATTACH | changed)
    assert fds == []
    return answer["error"]


def prove_open(running: Any, name: str = "another") -> None:
    """The machine goes on: another guest gets in, and its memory works."""
    guest = running.guest(name)
    guest.memory.write(3, b"\x77" * PAGE_SIZE)
    assert guest.memory.read(3) == b"\x77" * PAGE_SIZE


def own_names(cluster: str) -> list[str]:
    """What of the cluster stands in /dev/shm, without cluster and run."""
    return sorted(item.name.split(".", 3)[-1] for item in names.objects(cluster))


class Stage:
    """A liar and an honest guest on a machine that stands still; the honest one has pages and pools to lose."""

    def __init__(self, still: Any) -> None:
        self.machine = still.machine
        self.liar, self.honest = still.guest("liar", 300), still.guest("honest", 16)
        self.pools = [self.honest.tmem.new_pool(persistent=True), self.honest.tmem.new_pool(persistent=False)]
        for pool in self.pools:
            for index in range(4):
                assert pool.put(OID, index, bytes([index + 1]) * PAGE_SIZE)
        self.honest.memory.write_many(range(8), np.full((8, PAGE_SIZE), 0x5A, np.uint8))
        self.ephemeral = self.liar.tmem.new_pool(persistent=False)
        self.persistent = self.liar.tmem.new_pool(persistent=True)

    def picture(self) -> tuple[Any, ...]:
        """All that a refused call must leave as it was."""
        machine = self.machine
        pools = [(pool.serial, pool.owner, pool.pages, pool.counts.tolist()) for pool in machine.store.pools.all()]
        guests = [(guest.domain.map.usage.tobytes(), guest.domain.map.content.tobytes())
                  for guest in (self.liar, self.honest)]
        return pools, guests, machine.ledger.used, dict(machine.ledger.held), machine.heap.object.resident()

    def prove_honest_unharmed(self) -> None:
        persistent, ephemeral = self.pools
        for index in range(4):
            assert persistent.get(OID, index) == bytes([index + 1]) * PAGE_SIZE
        hits, pages = ephemeral.get_many(OID, range(4))
        assert hits.all() and [row[0] for row in pages.tolist()] == [1, 2, 3, 4]
        assert (self.honest.memory.read_many(range(8)) == 0x5A).all()

    def answer(self, message: bytes) -> Reply:
        return decode_reply(self.machine.dispatch.answer(self.liar.domain, message))

    def errors(self) -> int:
        return self.liar.counts.errors


def multicall(guest: Any, *rows: tuple[int, int, tuple[int, int, int], int, int]) -> list[int]:
    """Have a guest that stands still make a multicall of entries (op, pool, oid, index, slot); return the statuses."""
    count = write_entries(guest.transfer, list(rows))
    reply = guest.channel.call(Op.MULTICALL, count)
    assert reply.status == Status.OK
    found = statuses(guest.transfer, count)
    assert reply.value == found.count(Status.OK)
    return found
