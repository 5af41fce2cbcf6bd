"""Storage: which kind a page becomes, what is shared, replaced, swapped and counted; what happens short of room."""

import errno
import os

import numpy as np
import pytest
from storages import GROUP, a_storage, cut, folded, prove_empty, prove_sound, random_bytes, read
from stores import page

from hypervisor.tmem import dedup
from hypervisor.tmem.forms import RAW_LIMIT, ZERO_PLACE, Form, Kind, kinds_of, length_of
from hypervisor.tmem.slabs import PAYING
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("form", "content", "persistent", "kind"), [
    (Form.RAW, cut(0), False, Kind.RAW),                     # only an explicit new page is `zero`
    (Form.LZ4, cut(0), True, Kind.ZERO),
    (Form.DEDUP, cut(0), True, Kind.ZERO),
    (Form.TZE, cut(0), False, Kind.ZERO),
    (Form.LZ4, folded(100), True, Kind.LZ4),
    (Form.LZ4, random_bytes(PAGE_SIZE), True, Kind.RAW),
    (Form.LZ4, cut(PAYING - 100), False, Kind.LZ4),
    (Form.LZ4, cut(PAYING + 8), False, Kind.RAW),            # it shrinks, but needs as much as a frame
    (Form.DEDUP, page(7), False, Kind.SHARED),
    (Form.DEDUP, page(7), True, Kind.RAW),
    (Form.TZE, cut(8), False, Kind.TZE),
    (Form.TZE, cut(4032), False, Kind.TZE),
    (Form.TZE, cut(4040), False, Kind.RAW),
    (Form.TZE, cut(4096), False, Kind.RAW),
])
def test_which_kind_a_page_becomes(form, content, persistent, kind, many):
    with a_storage() as storage:
        if many:
            [place] = storage.write_many(form, GROUP, content.reshape(1, -1), persistent).tolist()
        else:
            place = storage.write(form, GROUP, content, persistent)
        assert kinds_of(np.array([place], np.uint64)).tolist() == [kind]
        assert (read(storage, place) == content).all()
        if kind == Kind.TZE:
            assert length_of(place) == np.count_nonzero(content)
        prove_sound(storage, np.array([place], np.uint64))


def test_poor_pages_are_counted_when_stored(monkeypatch):
    """T92: cn + 1 for each that was kept raw, none for one that found no room."""
    with a_storage(budget=2) as storage:
        noise = np.array([random_bytes(PAGE_SIZE, seed) for seed in range(3)])
        assert storage.write(Form.LZ4, GROUP, noise[0], True) is not None
        assert len(storage.write_many(Form.LZ4, GROUP, noise, True)) == 1
        assert storage.write(Form.LZ4, GROUP, noise[2], True) is None
        assert storage.counts_of(GROUP).cn == storage.figures()["cn"] == 2
        assert storage.write(Form.TZE, GROUP + 1, noise[2], True) is None
        assert storage.counts_of(GROUP + 1).cn == storage.counts_of(GROUP).cm == 0
        storage.forget(GROUP)
        assert storage.counts_of(GROUP).cn == 0


def test_no_room_for_compressed_data_is_counted():
    with a_storage(budget=3) as storage:
        assert storage.write(Form.LZ4, GROUP, folded(100), True) is None
        assert storage.counts_of(GROUP).cm == 1
        prove_empty(storage)


@pytest.mark.parametrize(("budget", "stored"), [(3, 0), (4, 4), (5, 6), (8, 4), (9, 6)])
def test_a_batch_ends_where_room_ends(budget, stored):
    """Larger slots serve for smaller data only where there is no slab for them: 5 frames take more than 8 do."""
    with a_storage(budget) as storage:
        pages = np.array([folded(3000), cut(0), folded(100), folded(3000), random_bytes(PAGE_SIZE), folded(100)])
        places = storage.write_many(Form.LZ4, GROUP, pages, True)
        assert len(places) == stored
        assert storage.counts_of(GROUP).cn == (stored > 4)
        assert storage.counts_of(GROUP).cm == 0, "who puts the rest one by one counts it"
        assert all((read(storage, place) == pages[row]).all() for row, place in enumerate(places.tolist()))
        prove_sound(storage, places)


def test_zero_is_free_for_ever():
    with a_storage() as storage:
        assert storage.zero == ZERO_PLACE
        assert not read(storage, storage.zero).any()
        storage.free(storage.zero)
        storage.free_many(np.array([storage.zero] * 2, np.uint64))
        prove_empty(storage)


def test_raw_pages_are_replaced_in_place():
    with a_storage() as storage:
        places = storage.write_many(Form.RAW, GROUP, np.array([page(1), page(2)]), True)
        assert storage.rewrite_many(places, Form.RAW, np.array([page(3), page(4)]))
        assert storage.rewrite(int(places[0]), Form.RAW, GROUP, page(5), True) == places[0]
        assert (read(storage, int(places[0])) == page(5)).all()
        assert (read(storage, int(places[1])) == page(4)).all()
        packed = np.array([storage.write(Form.LZ4, GROUP, page(1), True), places[0]], np.uint64)
        assert not storage.rewrite_many(packed, Form.RAW, np.array([page(6), page(7)]))
        assert not storage.rewrite_many(places, Form.LZ4, np.array([page(6), page(7)]))
        assert (read(storage, int(places[0])) == page(5)).all()


def test_a_failed_rewrite_leaves_nothing():
    """T33: the old data is gone, its frames are free."""
    with a_storage(budget=4) as storage:
        place = storage.write(Form.LZ4, GROUP, folded(100), True)
        storage.heap.room = lambda frames: False
        assert storage.rewrite(place, Form.LZ4, GROUP, folded(100, 1), True) is not None, "into the spare frames"
        place = storage.write(Form.LZ4, GROUP, folded(100, 2), True)
        storage.heap.take_run = lambda: None
        storage.heap.take = lambda count: []
        assert storage.rewrite(place, Form.LZ4, GROUP, random_bytes(PAGE_SIZE), True) is None
        assert storage.figures()["cp"] == 1


def test_overwriting_a_twin_leaves_the_other():
    """T95."""
    with a_storage() as storage:
        one, other = storage.write_many(Form.DEDUP, GROUP, np.array([page(1), page(1)]), False).tolist()
        assert one == other
        assert storage.heap.in_use == 1
        fresh = storage.rewrite(one, Form.DEDUP, GROUP, page(2), False)
        assert (read(storage, other) == page(1)).all()
        assert (read(storage, fresh) == page(2)).all()
        storage.free_many(np.array([other, fresh], np.uint64))
        prove_empty(storage)


@pytest.mark.parametrize(("across", "frames"), [(False, 2), (True, 1)])
def test_groups_share_only_where_it_was_asked_for(across, frames):
    with a_storage(across=across) as storage:
        places = [storage.write(Form.DEDUP, group, page(1), False) for group in (1, 2)]
        assert storage.heap.in_use == frames
        assert storage.figures()["Gd"] == 2 - frames
        prove_sound(storage, np.array(places, np.uint64))


def test_equal_fingerprints_of_different_pages(monkeypatch):
    monkeypatch.setattr(dedup, "fingerprint", lambda page: 5)
    with a_storage() as storage:
        places = storage.write_many(Form.DEDUP, GROUP, np.array([page(1), page(2), page(1)]), False)
        assert kinds_of(places).tolist() == [Kind.SHARED, Kind.RAW, Kind.SHARED]
        assert (read(storage, int(places[1])) == page(2)).all()
        prove_sound(storage, places)


def test_a_record_may_vanish_while_a_twin_looks_for_room(monkeypatch):
    """Its fingerprint is free again then: a record of the new page is made, not a second of the old."""
    monkeypatch.setattr(dedup, "fingerprint", lambda page: 5)
    with a_storage(budget=1) as storage:
        old = storage.write(Form.DEDUP, GROUP, page(1), False)
        plain = storage.heap.room

        def room(frames):
            storage.free(old)
            storage.heap.trim(1)
            return plain(frames)

        storage.heap.room = room
        fresh = storage.write(Form.DEDUP, GROUP, page(2), False)
        assert fresh >= RAW_LIMIT
        assert (read(storage, fresh) == page(2)).all()
        prove_sound(storage, np.array([fresh], np.uint64))


@pytest.mark.parametrize("form", [Form.LZ4, Form.TZE, Form.DEDUP])
def test_what_a_guest_changes_meanwhile_is_of_no_effect(form):
    """Rule 2: the page is copied before it is packed; room is looked for after that."""
    with a_storage() as storage:
        mine, plain = cut(2000), storage.heap.room
        storage.heap.room = lambda frames: mine.fill(7) or plain(frames)
        place = storage.write(form, GROUP, mine, False)
        assert (mine == 7).all()
        assert (read(storage, place) == cut(2000)).all()


def test_pages_go_to_the_swap_disk_as_far_as_it_has_slots():
    with a_storage(swap_slots=3) as storage:
        pages = np.array([page(1), folded(99), cut(0), cut(800), page(2)])
        forms = [Form.RAW, Form.LZ4, Form.LZ4, Form.TZE, Form.RAW]
        old = np.array([storage.write(form, GROUP, p, True) for form, p in zip(forms, pages, strict=True)], np.uint64)
        new = storage.write_back(old)
        assert kinds_of(new).tolist() == [Kind.SWAPPED, Kind.SWAPPED, Kind.ZERO, Kind.SWAPPED, Kind.RAW]
        assert storage.heap.in_use == 1
        assert storage.figures()["swapped_pages"] == 3
        assert all((read(storage, place) == p).all() for place, p in zip(new.tolist(), pages, strict=True))
        assert (storage.write_back(new) == new).all(), "the disk is full"
        prove_sound(storage, new)
        storage.free_many(new)
        prove_empty(storage)


def test_a_disk_that_fails_keeps_every_page_where_it_is(monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with a_storage(swap_slots=8) as storage:
        old = storage.write_many(Form.RAW, GROUP, np.array([page(1), page(2)]), True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refuse)
            assert (storage.write_back(old) == old).all()
        assert storage.swap.used == 0
        prove_sound(storage, old)
        assert (kinds_of(storage.write_back(old)) == Kind.SWAPPED).all()


def test_without_a_disk_nothing_is_written_back():
    with a_storage() as storage:
        old = storage.write_many(Form.RAW, GROUP, np.array([page(1)]), True)
        assert (storage.write_back(old) == old).all()


def test_figures_say_what_is_there():
    with a_storage() as storage:
        places = [storage.write(Form.RAW, GROUP, page(1), False), storage.write(Form.TZE, GROUP, cut(800), False),
                  *storage.write_many(Form.LZ4, GROUP, np.array([folded(100), folded(100, 1), cut(0)]), True).tolist(),
                  *storage.write_many(Form.DEDUP, GROUP, np.array([page(1), page(1)]), False).tolist()]
        figures, tally = storage.figures(), storage.tally(np.array(places, np.uint64))
        lengths = sum(length_of(place) for place in places[2:4])
        expected = {"raw_pages": 1, "tze_pages": 1, "Zt": 800, "cp": 2, "cb": lengths, "shared_pages": 2, "Sc": 1,
                    "Gd": 1, "slab_frames": 8, "slots_used": 3, "swapped_pages": 0}
        assert {key: figures[key] for key in expected} == expected
        assert figures["fragmentation"] == 1 - (800 + lengths) / (8 * PAGE_SIZE)
        assert tally[:, 0].tolist() == [1, 1, 2, 1, 2, 0]
        assert tally[:, 1].tolist() == [0, 0, lengths, 800, 0, 0]


def test_an_audit_finds_a_place_that_is_not_so():
    with a_storage() as storage:
        places = storage.write_many(Form.LZ4, GROUP, np.array([folded(100), random_bytes(PAGE_SIZE)]), True)
        assert storage.audit(places) == []
        for wrong in (places[:1], places[1:], np.append(places, places[1]), np.append(places, places[0])):
            assert storage.audit(wrong) != []


def test_what_is_no_place_is_not_freed():
    with a_storage() as storage, pytest.raises(BrokenInvariant, match="kind 255"):
        storage.free((1 << 64) - 1)
