"""Reasons to leave: noted at once, obeyed between operations, and enforced on a thread that does not look."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from guests.workloads import leave
from guests.workloads.leave import END_OF_INPUT, HYPERVISOR_GONE, Departure, Leave, Reason

DEADLINE_S = 20.0


class Watched:
    """A departure whose standard input and hypervisor are the test's, and which ends nothing."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.was_ended, self.gone = threading.Event(), threading.Event()
        self.departure = Departure("guest 'x'", self._end)
        self._theirs, self._ours = os.pipe()
        self.departure.watch_input(self._theirs)
        self.departure.watch_hypervisor(self.gone.wait)

    def _end(self, status: int) -> None:
        self.ended.append(status)
        self.was_ended.set()

    def say(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end_input(self) -> None:
        if self._ours >= 0:
            os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        """End both threads, whatever the test did, and wait for them."""
        self.departure.dismiss()
        self.end_input()
        self.gone.set()
        for thread in threading.enumerate():
            if thread.name in ("watch-input", "watch-hypervisor"):
                thread.join(DEADLINE_S)
        os.close(self._theirs)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(leave, "GRACE_SECONDS", 0.05)
    one = Watched()
    yield one
    one.close()


def test_lines_come_one_by_one_however_they_were_cut(watched: Watched) -> None:
    watched.say("one\ntw")
    assert watched.departure.line(DEADLINE_S) == "one"
    assert watched.departure.line(0.01) is None
    watched.say("o\n\nthree")
    watched.end_input()
    assert [watched.departure.line(DEADLINE_S) for _ in range(3)] == ["two", "", "three"]


def test_the_end_of_input_behind_the_last_word_is_no_reason(watched: Watched) -> None:
    watched.say("go\nquit")
    watched.end_input()
    assert [watched.departure.line(DEADLINE_S) for _ in range(2)] == ["go", "quit"]
    assert watched.departure.line(0.2) is None
    watched.departure.going_on()


def test_without_a_reason_work_goes_on(watched: Watched) -> None:
    watched.departure.going_on()
    assert watched.departure.line(0.01) is None


REASONS: list[tuple[str, Callable[[Watched], None], Reason]] = [
    ("end of input", Watched.end_input, END_OF_INPUT),
    ("hypervisor gone", lambda watched: watched.gone.set(), HYPERVISOR_GONE),
]


@pytest.mark.parametrize(("name", "cause", "reason"), REASONS)
def test_a_reason_ends_a_wait_and_the_work(watched: Watched, name: str, cause, reason: Reason) -> None:
    cause(watched)
    with pytest.raises(Leave) as left:
        watched.departure.line(DEADLINE_S)
    assert left.value.reason is reason
    with pytest.raises(Leave):
        watched.departure.going_on()


@pytest.mark.parametrize(("name", "cause", "reason"), REASONS)
def test_who_does_not_look_is_ended(watched: Watched, capfd: pytest.CaptureFixture[str], name: str, cause,
                                    reason: Reason) -> None:
    cause(watched)
    assert watched.was_ended.wait(DEADLINE_S)
    assert watched.ended == [1]
    assert capfd.readouterr().err == f"guest 'x': {reason.line}\n"


def test_the_first_reason_counts(watched: Watched) -> None:
    watched.gone.set()
    with pytest.raises(Leave):
        watched.departure.line(DEADLINE_S)
    watched.end_input()
    assert watched.was_ended.wait(DEADLINE_S)
    assert watched.departure.reason is HYPERVISOR_GONE
    assert watched.ended == [1]


def test_the_line_is_written_once(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    watched.departure.say(Reason(1, "no more"))
    watched.departure.say(HYPERVISOR_GONE)
    assert capfd.readouterr().err == "guest 'x': no more\n"


def test_a_quiet_reason_says_nothing(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    watched.departure.say(Reason(143))
    assert capfd.readouterr().err == ""


def test_after_the_work_the_end_of_input_is_as_good_as_quit(watched: Watched) -> None:
    watched.departure.work_is_done()
    watched.end_input()
    with pytest.raises(Leave) as left:
        watched.departure.line(DEADLINE_S)
    assert left.value.reason == Reason(0)


@pytest.mark.parametrize(("name", "cause", "reason"), REASONS)
def test_who_leaves_by_itself_is_left_alone(watched: Watched, name: str, cause, reason: Reason) -> None:
    watched.departure.dismiss()
    cause(watched)
    watched.close = lambda: None        # below, once
    Watched.close(watched)
    watched.departure.going_on()
    assert watched.ended == []


def test_a_standard_input_that_was_never_open_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leave, "GRACE_SECONDS", 0.01)
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    departure = Departure("x", lambda status: None)
    departure.work_is_done()
    departure.watch_input(read)
    with pytest.raises(Leave):
        departure.line(DEADLINE_S)
    for thread in threading.enumerate():
        if thread.name == "watch-input":
            thread.join(DEADLINE_S)
