"""Guest processes to be killed: each does one thing for ever and says a word each time it has begun anew.

    python -c "import victims; victims.main()" CLUSTER NAME MODE
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from time import monotonic

import numpy as np

from guests import DiscardFault, Essa, Guest, HypervisorGone
from shm.abi import PAGE_SIZE

PAGES = 200


def say(word: object) -> None:
    print(word, flush=True)


def writes(guest: Guest) -> None:
    """Fault pages in, more than the budget holds: grants, evictions, page-ins."""
    data = np.full((50, PAGE_SIZE), 7, np.uint8)
    while True:
        for first in range(0, PAGES, 50):
            guest.memory.write_many(range(first, first + 50), data)
        say("again")


def puts(guest: Guest) -> None:
    ephemeral, persistent = guest.tmem.new_pool(persistent=False), guest.tmem.new_pool(persistent=True)
    pages = np.full((64, PAGE_SIZE), 9, np.uint8)
    while True:
        ephemeral.put_many(1, range(64), pages)
        persistent.put_many(2, range(64), pages)
        ephemeral.get_many(1, range(64))
        persistent.flush_object(2)
        say("again")


def hints(guest: Guest) -> None:
    """All states and discards, one page at a time: most of the time is spent under the lock."""
    orders = [Essa.SET_STABLE, Essa.SET_VOLATILE, Essa.SET_POT_VOLATILE, Essa.SET_UNUSED]
    while True:
        for gfn in range(PAGES):
            guest.essa_one(Essa.SET_STABLE, gfn)
            try:
                guest.memory.write_part(gfn, 0, b"x")
            except DiscardFault:
                continue
            guest.essa_one(orders[gfn % 4], gfn)
        say("again")


def holds_the_lock(guest: Guest) -> None:
    guest.memory.write_many(range(50), np.ones((50, PAGE_SIZE), np.uint8))
    with guest._map.lock:
        while True:
            say("again")
            sys.stdin.readline()


def comes_and_goes(guest: Guest) -> None:
    """Attach and leave: it may be killed while the hypervisor makes its objects."""
    guest.close()
    while True:
        say("again")
        with Guest.connect(sys.argv[1], sys.argv[2], PAGES * PAGE_SIZE) as again:
            again.memory.write(0, bytes(PAGE_SIZE))


def leaves_a_child(guest: Guest) -> None:
    """Die while a child holds the memory mapped; the child says what a touch brings after the hypervisor hung up."""
    guest.memory.write_many(range(50), np.ones((50, PAGE_SIZE), np.uint8))
    link, memory = guest._link, guest.memory._bytes
    link.setblocking(True)
    if os.fork():
        say("again")
        signal.pause()
    assert link.recv(1, socket.MSG_WAITALL) == b""
    toucher = os.fork()
    if not toucher:
        memory[0] = 1
        os._exit(0)
    _, status = os.waitpid(toucher, 0)
    say(f"touching it: {signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else 'nothing happened'}")
    os._exit(0)


# What the hypervisor's death looks like from here

def calls(guest: Guest) -> None:
    while True:
        guest.ping()
        say("again")


def faults(guest: Guest) -> None:
    writes(guest)


def waits_for_the_lock(guest: Guest) -> None:
    """Somebody holds its lock who will not give it back: it waits, and is told."""
    guest._semaphore.acquire(0)
    say("again")
    guest.memory.read(0)


def blocked_call(guest: Guest) -> None:
    """Call when told to; the hypervisor stands still by then."""
    say("again")
    sys.stdin.readline()
    say("calling")
    guest.ping()


def idle(guest: Guest) -> None:
    """Call nothing at all, and wait for the end."""
    say("again")
    assert guest.wait_gone(60)
    raise HypervisorGone("the connection is closed")


def until_gone(mode: Callable[[Guest], None]) -> Callable[[Guest], None]:
    def run(guest: Guest) -> None:
        try:
            mode(guest)
        except HypervisorGone as error:
            say(f"gone at {monotonic()}: {error}")
    return run


DYING = {mode.__name__: mode for mode in (writes, puts, hints, holds_the_lock, comes_and_goes, leaves_a_child)}
BEREFT = {mode.__name__: until_gone(mode) for mode in (calls, faults, puts, waits_for_the_lock, blocked_call, idle)}


def main() -> None:
    cluster, name, mode = sys.argv[1:4]
    guest = Guest.connect(cluster, name, PAGES * PAGE_SIZE, 2 * PAGES * PAGE_SIZE)
    (DYING | BEREFT)[mode](guest)


if __name__ == "__main__":
    main()
