"""Hypercalls over queues: polling that learns, replies to calls long given up, queues left full, and ends that go."""

import socket
import threading
from time import sleep

import numpy as np
import posix_ipc
import pytest

from shm import abi, channel
from shm.abi import MESSAGE_BYTES, PAGE_SIZE, QUEUE_DEPTH, Op, Reply, Status
from shm.channel import GuestEnd, HaltPoll, HostEnd, make_queue, open_queue
from shm.errors import BadHypercall, HypervisorGone, UsageProblem
from shm.transfer import TRANSFER_PAGES, Transfer

FIRST, CEILING, SHORT = HaltPoll.FIRST, HaltPoll.CEILING, HaltPoll.SHORT

LESSONS = {
    #                                                      window    waited       then
    "polled long enough":                                  (FIRST,   FIRST,       FIRST),
    "answered at once":                                    (CEILING, 0,           CEILING),
    "a longer poll would have met it":                     (FIRST,   FIRST + 1,   2 * FIRST),
    "grows no further than the ceiling":                   (CEILING, CEILING + 1, CEILING),
    "grows to the ceiling, not past it":                   (CEILING // 2 + 1, CEILING, CEILING),
    "a short sleep makes it poll again":                   (0,       SHORT - 1,   FIRST),
    "a long sleep ends the polling":                       (CEILING, SHORT,       0),
    "a long sleep ends the polling at once":               (FIRST,   10 ** 9,     0),
    "idle and still idle":                                 (0,       10 ** 9,     0),
}


@pytest.mark.parametrize(("window", "waited", "then"), LESSONS.values(), ids=list(LESSONS))
def test_polling_learns(window, waited, then):
    halt = HaltPoll()
    halt.window = window
    halt.settle(waited)
    assert halt.window == then


def test_polling_is_bounded_whatever_it_learns():
    halt = HaltPoll()
    for waited in np.random.default_rng(3).integers(0, 2 * SHORT, 1000).tolist():
        halt.settle(waited)
        assert halt.window == 0 or FIRST <= halt.window <= CEILING


class Ends:
    """Both ends of one guest's queues, and the other end of its door."""

    def __init__(self, stem):
        self.names = [f"{stem}.req", f"{stem}.rep"]
        self.host = HostEnd(*(make_queue(name) for name in self.names))
        self.queues = [open_queue(name) for name in self.names]
        self.door, self.far_door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.transfer = Transfer(np.zeros(TRANSFER_PAGES * PAGE_SIZE, np.uint8))
        self.guest = GuestEnd(*self.queues, self.door, self.transfer)

    def serve(self, times):
        """Answer so many requests, when the guest has room for the answer: the value is the sum of the arguments."""
        def answer():
            for _ in range(times):
                message = None
                while message is None:
                    sleep(0)
                    message = self.host.receive()
                request = abi.decode_request(message)
                while self.host.replies.current_messages == QUEUE_DEPTH:
                    sleep(0)
                self.host.reply(abi.encode_reply(request.seq, Status.OK, sum(request.arguments)))
        thread = threading.Thread(target=answer)
        thread.start()
        return thread

    def close(self):
        for name in self.names:
            posix_ipc.unlink_message_queue("/" + name)
        self.host.close()
        for queue in self.queues:
            queue.close()
        self.door.close()
        self.far_door.close()


@pytest.fixture
def ends(cluster_name):
    pair = Ends(f"memcommons.{cluster_name}.000000.g0")
    yield pair
    pair.close()


@pytest.mark.parametrize("may_poll", [True, False])
def test_calls_are_answered_polled_or_not(ends, may_poll):
    ends.transfer.may_poll = may_poll
    server = ends.serve(20)
    for n in range(20):
        assert ends.guest.call(Op.FAULT, n) == Reply(n + 1, Status.OK, n)
    server.join()


def test_replies_to_calls_given_up_are_passed_over(ends):
    for old in (7, 8, 9):
        ends.host.reply(abi.encode_reply(old, Status.EINVAL, old))
    ends.guest.seq = 9
    server = ends.serve(1)
    assert ends.guest.call(Op.FAULT, 3) == Reply(10, Status.OK, 3)
    server.join()


def test_sequence_numbers_wrap_within_32_bits(ends):
    ends.guest.seq = abi.U32
    server = ends.serve(1)
    assert ends.guest.call(Op.PING).seq == 0
    server.join()


def test_requests_left_by_calls_given_up_do_not_stop_the_next(ends):
    for seq in range(QUEUE_DEPTH):
        ends.queues[0].send(abi.encode_request(seq, Op.PING))
    ends.guest.seq = 10
    caller = threading.Thread(target=lambda: ends.guest.call(Op.PING))
    caller.start()
    server = ends.serve(QUEUE_DEPTH + 1)
    caller.join(20)
    assert not caller.is_alive()
    server.join()


def test_a_hypervisor_that_takes_no_request_is_gone(ends, monkeypatch):
    monkeypatch.setattr(channel, "CALL_DEADLINE_S", 0.02)
    for seq in range(QUEUE_DEPTH):
        ends.queues[0].send(abi.encode_request(seq, Op.PING))
    with pytest.raises(HypervisorGone, match="took no request"):
        ends.guest.call(Op.PING)


def test_a_hypervisor_that_does_not_answer_is_gone(ends, monkeypatch):
    monkeypatch.setattr(channel, "CALL_DEADLINE_S", 0.02)
    with pytest.raises(HypervisorGone, match="did not answer"):
        ends.guest.call(Op.PING)


def test_a_hypervisor_whose_door_closes_is_gone_at_once(ends):
    ends.far_door.close()
    with pytest.raises(HypervisorGone, match="door is closed"):
        ends.guest.call(Op.PING)


def test_a_hypervisor_whose_door_closes_is_gone_at_once_though_the_queue_is_full(ends, monkeypatch):
    """Each call that failed has left its request there; the next must not wait for room that nobody makes."""
    monkeypatch.setattr(channel, "CALL_DEADLINE_S", 5.0)
    ends.far_door.close()
    for _ in range(QUEUE_DEPTH + 2):
        with pytest.raises(HypervisorGone, match="door is closed"):
            ends.guest.call(Op.PING)


def test_an_answer_that_was_sent_before_the_door_closed_is_heard(ends):
    ends.host.reply(abi.encode_reply(1, Status.OK, 5))
    ends.far_door.close()
    assert ends.guest.call(Op.PING) == Reply(1, Status.OK, 5)


def test_a_guest_that_does_not_listen_is_at_fault_for_its_full_queue(ends):
    for seq in range(QUEUE_DEPTH):
        ends.host.reply(abi.encode_reply(seq, Status.OK))
    with pytest.raises(BadHypercall, match="reply queue is full"):
        ends.host.reply(abi.encode_reply(9, Status.OK))


def test_the_hypervisors_end_never_blocks(ends):
    assert ends.host.receive() is None
    ends.queues[0].send(b"any bytes")
    assert ends.host.receive() == b"any bytes"
    assert ends.host.receive() is None


def test_queues_are_small_private_and_non_blocking(ends):
    for queue in (ends.host.requests, ends.host.replies):
        assert (queue.max_messages, queue.max_message_size, queue.block) == (QUEUE_DEPTH, MESSAGE_BYTES, False)
    with pytest.raises(ValueError, match="too long"):
        ends.queues[0].send(b"x" * (MESSAGE_BYTES + 1))


def test_a_queue_that_cannot_be_made_says_what_to_do(ends):
    with pytest.raises(UsageProblem, match="RLIMIT_MSGQUEUE") as caught:
        make_queue(ends.names[0])
    assert "\n" not in str(caught.value)


def test_a_queue_that_is_not_there_means_that_the_hypervisor_is_gone(cluster_name):
    with pytest.raises(HypervisorGone, match="cannot be opened"):
        open_queue(f"memcommons.{cluster_name}.000000.g0.req")
