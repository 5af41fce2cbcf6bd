"""Marks on tmem where the host has no frame for what is taken back."""

import pytest

from guests.mappings.marks_on_tmem import MarksOnTmem
from shm.abi import PAGE_SIZE
from shm.errors import DiscardFault, OutOfMemory

PAGE = b"x" * PAGE_SIZE


@pytest.fixture
def guest(still_machine):
    return still_machine(64, "cmm2+tmem").guest(pages=4)


@pytest.fixture
def marks(guest):
    marks = MarksOnTmem(guest, guest.tmem.new_pool(persistent=False))
    marks.write(0, PAGE)
    marks.set_volatile([0])
    return marks


def test_without_a_frame_a_page_stays_volatile_and_keeps_its_bytes(guest, marks, monkeypatch):
    monkeypatch.setattr(guest.memory, "deflate", lambda gfns: False)
    with pytest.raises(OutOfMemory, match="no frames"):
        marks.set_stable_if_not_discarded([0])
    monkeypatch.undo()
    assert marks.read(0) == PAGE
    assert not marks.set_stable_if_not_discarded([0])[0]
    assert marks.read(0) == PAGE


def test_a_frame_that_is_lost_before_the_bytes_are_in_it_is_a_discard(guest, marks, monkeypatch):
    def no_frame(*_):
        raise OutOfMemory("none")

    monkeypatch.setattr(guest.memory, "write_many", no_frame)
    assert marks.set_stable_if_not_discarded([0])[0]
    monkeypatch.undo()
    with pytest.raises(DiscardFault):
        marks.read(0)
    marks.set_stable([0])
    assert marks.read(0) == bytes(PAGE_SIZE)
