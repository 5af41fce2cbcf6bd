"""One hypercall round trip beside a bare posix_ipc + msgpack echo: each side polls on a core of its own."""

import os
from multiprocessing import get_context

import msgpack
import posix_ipc
from cluster import guest, hypervisor
from measure import Result, compare

CALLS = 2000
NAME = f"bench-{os.getpid()}"


def echo(name: str, core: int) -> None:
    """Answer messages, polling, until one says stop."""
    os.sched_setaffinity(0, {core})
    requests, replies = (posix_ipc.MessageQueue(f"/{name}.{end}") for end in ("req", "rep"))
    requests.block = replies.block = False
    while True:
        try:
            seq, operation = msgpack.unpackb(requests.receive()[0])
        except posix_ipc.BusyError:
            continue
        replies.send(msgpack.packb((seq, 1, 0)))
        if operation == 0:
            return


class Echo:
    """The client of a bare echo."""

    def __init__(self, name: str) -> None:
        self.requests, self.replies = (posix_ipc.MessageQueue(f"/{name}.{end}") for end in ("req", "rep"))
        self.requests.block = self.replies.block = False

    def call(self, operation: int = 1) -> None:
        self.requests.send(msgpack.packb((1, operation)))
        while True:
            try:
                msgpack.unpackb(self.replies.receive()[0])
                return
            except posix_ipc.BusyError:
                pass


def results() -> list[Result]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("hypercall: both sides cannot poll on one core; skipped")
        return []
    for end in ("req", "rep"):
        posix_ipc.MessageQueue(f"/{NAME}.{end}", posix_ipc.O_CREX, max_messages=4, max_message_size=512)
    server = get_context("spawn").Process(target=echo, args=(NAME, cores[1]))
    server.start()
    bare = Echo(NAME)
    try:
        with hypervisor(NAME, 64 << 20, core=cores[1]) as _, guest(NAME, "1MiB") as attached:
            # The peer polls without end, on the core that the hypervisor also needs: so they run one after the other.
            os.sched_setaffinity(0, {cores[0]})
            os.kill(server.pid or 0, 19)
            return [compare_in_turn(attached.ping, bare, server.pid or 0)]
    finally:
        os.kill(server.pid or 0, 18)
        bare.call(0)
        server.join()
        for end in ("req", "rep"):
            posix_ipc.unlink_message_queue(f"/{NAME}.{end}")
        os.sched_setaffinity(0, set(cores))


def compare_in_turn(ping: object, bare: Echo, server: int) -> Result:
    """Time both, the echo server stopped (SIGSTOP) while the hypervisor is measured."""
    state = {"turn": 0}

    def before() -> None:
        state["turn"] += 1
        os.kill(server, 19 if state["turn"] % 2 else 18)
        if state["turn"] % 2 == 0:
            bare.call()

    return compare("hypercall round trip, polled", ping, "bare queue + msgpack echo, polled", bare.call, CALLS,  # type: ignore[arg-type]
                   goal=2.0, before=before)
