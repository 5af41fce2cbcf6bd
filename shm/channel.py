"""Hypercalls over POSIX message queues: one request and one reply queue a guest, 4 messages of 512 bytes each.

Queues are non-blocking: a timed receive of 0 on a blocking one costs 18 us, `block = False` 0.6.  Both sides wait by
adaptive halt polling: poll for a while that grows and shrinks with its success, then sleep (in poll or epoll).  The
guest sleeps on its reply queue and on the door's socket at once, so the death of the hypervisor wakes it.
"""

import os
import select
import socket
from time import monotonic, monotonic_ns

import posix_ipc

from shm.abi import MESSAGE_BYTES, QUEUE_DEPTH, Op, Reply, decode_reply, encode_request
from shm.errors import BadHypercall, HypervisorGone, UsageProblem
from shm.transfer import Transfer

CALL_DEADLINE_S = 30.0       # a hypervisor that lives but does not answer for so long is held for gone


class HaltPoll:
    """How long to poll before sleeping: KVM's rule (halt_poll_ns), in nanoseconds.

    A sleeper's wait counts its own waking up, 55 to 70 us across two cores: so a wait of up to SHORT is one that a poll
    of CEILING might have met, and a longer one is idleness.  CEILING is longer than a call and a waking together: were
    it shorter, either side would fall asleep while the other wakes up.
    """

    CEILING = 200_000
    FIRST = 10_000
    SHORT = 400_000

    def __init__(self) -> None:
        self.window = self.FIRST

    def settle(self, waited: int) -> None:
        """Learn from a wait of `waited` ns: grow while a longer poll would have met it, else give polling up."""
        if waited <= self.window:
            return
        self.window = min(self.CEILING, max(self.FIRST, self.window * 2)) if waited < self.SHORT else 0


def make_queue(name: str) -> posix_ipc.MessageQueue:
    """Create a queue, non-blocking, mode 0600; translate the two limits that people meet into what to do."""
    try:
        queue = posix_ipc.MessageQueue("/" + name, posix_ipc.O_CREX, mode=0o600, max_messages=QUEUE_DEPTH,
                                       max_message_size=MESSAGE_BYTES)
    except (OSError, posix_ipc.Error) as error:
        raise UsageProblem(f"no more message queues ({error}): stop other clusters, raise RLIMIT_MSGQUEUE (ulimit -q) "
                           f"or fs.mqueue.queues_max, or start fewer guests") from error
    queue.block = False
    return queue


def open_queue(name: str) -> posix_ipc.MessageQueue:
    try:
        queue = posix_ipc.MessageQueue("/" + name)
    except (OSError, posix_ipc.Error) as error:
        raise HypervisorGone(f"queue {name} cannot be opened: {error}") from error
    queue.block = False
    return queue


class GuestEnd:
    """The guest's side: one call at a time."""

    def __init__(self, requests: posix_ipc.MessageQueue, replies: posix_ipc.MessageQueue, door: socket.socket,
                 transfer: Transfer) -> None:
        self.requests, self.replies, self.door = requests, replies, door
        self.transfer = transfer
        self.halt = HaltPoll()
        self.seq = 0
        self._sleep = select.poll()
        self._sleep.register(replies.mqd, select.POLLIN)
        self._sleep.register(door.fileno(), select.POLLIN)

    def call(self, op: Op, *arguments: int) -> Reply:
        """Make one hypercall and return its reply; HypervisorGone when there will be none."""
        self.seq = self.seq + 1 & 0xFFFFFFFF
        self._send(encode_request(self.seq, op, *arguments))
        deadline = monotonic() + CALL_DEADLINE_S
        while True:
            reply = decode_reply(self._receive(deadline))
            if reply.seq == self.seq:       # an older one answers a call that an exception had interrupted
                return reply

    def _send(self, message: bytes) -> None:
        try:
            self.requests.send(message)
        except posix_ipc.BusyError:         # left full by interrupted calls: wait until one was taken
            self._send_patiently(message)

    def _send_patiently(self, message: bytes) -> None:
        room = select.poll()
        room.register(self.requests.mqd, select.POLLOUT)
        room.register(self.door.fileno(), select.POLLIN)
        ready = dict(room.poll(CALL_DEADLINE_S * 1000))
        if self.door.fileno() in ready:
            raise HypervisorGone("the hypervisor is gone: its end of the door is closed")
        if not ready:
            raise HypervisorGone(f"the hypervisor took no request for {CALL_DEADLINE_S:g} s")
        self.requests.send(message)

    def _receive(self, deadline: float) -> bytes:
        receive, may_poll, start = self.replies.receive, self.transfer.may_poll, monotonic_ns()
        stop = start + (self.halt.window if may_poll else 0)
        if may_poll:
            os.sched_yield()             # no answer is there yet: to find that out costs more than to give way first
        while True:
            try:
                message = receive()[0]
                break
            except posix_ipc.BusyError:
                if monotonic_ns() >= stop:
                    self._block(deadline)
                else:
                    os.sched_yield()                 # the hypervisor may be waiting for this very core
        if may_poll:
            self.halt.settle(monotonic_ns() - start)
        return message

    def _block(self, deadline: float) -> None:
        ready = dict(self._sleep.poll(max(0.0, deadline - monotonic()) * 1000))
        if self.replies.mqd in ready:
            return
        if self.door.fileno() in ready:
            raise HypervisorGone("the hypervisor is gone: its end of the door is closed")
        raise HypervisorGone(f"the hypervisor did not answer for {CALL_DEADLINE_S:g} s")


class HostEnd:
    """The hypervisor's side of one guest's queues; never blocks."""

    def __init__(self, requests: posix_ipc.MessageQueue, replies: posix_ipc.MessageQueue) -> None:
        self.requests, self.replies = requests, replies

    def receive(self) -> bytes | None:
        """Return the next request's bytes, or None where there is none."""
        try:
            return self.requests.receive()[0]
        except posix_ipc.BusyError:
            return None

    def reply(self, message: bytes) -> None:
        """Answer; a reply queue that is full is its guest's fault (BadHypercall)."""
        try:
            self.replies.send(message)
        except posix_ipc.BusyError:
            raise BadHypercall("its reply queue is full: it asks and does not listen") from None

    def close(self) -> None:
        self.requests.close()
        self.replies.close()
