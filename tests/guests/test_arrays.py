"""Arrays that heal, in both fault modes: what is purged is rebuilt, what is stored to a stable array is kept.

The hypervisor is another process, and evicts when the test says so.
"""

from contextlib import suppress

import numpy as np
import pytest
from harness.hardware_guests import PAGES, counts, described, discard, needs_hardware

from guests import Guest
from guests.restores import EachPage, Elements
from shm.counters import Count
from shm.errors import OutOfMemory, UsageProblem

SHAPE = (100, 40)                                # 4000 elements of 8 bytes: 7.8 pages
SQUARES = (np.arange(4000.0) ** 2).reshape(SHAPE)


def squares(start, stop):
    return np.arange(start, stop, dtype=float) ** 2


@pytest.fixture(params=["software", pytest.param("hardware", marks=needs_hardware)])
def guest(request, hypervisor_process):
    hypervisor = hypervisor_process(budget=256)
    with Guest.connect(hypervisor.cluster, "g", PAGES * 4096, faults=request.param) as guest:
        yield guest


@pytest.fixture
def healing(guest):
    return guest.array(SHAPE, "f8", rebuild=squares)


def states(guest):
    return {state: count for state, count in described(guest.cluster)["states"].items() if count}


def test_a_new_array_is_built_when_it_is_used_first(guest, healing):
    assert states(guest) == {"Vz": 8, "Sz": PAGES - 8}
    with healing.pinned() as held:
        assert held.purged == 8
        assert np.array_equal(held.values, SQUARES)
        assert states(guest)["Sr"] == 8
    assert states(guest) == {"Vr": 8, "Sz": PAGES - 8}


def test_what_is_purged_is_rebuilt_and_nothing_is_swapped(guest, healing):
    with healing.pinned():
        pass
    assert discard(guest.cluster, healing.first + 2, 3) == 3
    with healing.pinned() as held:
        assert held.purged == 3
        assert np.array_equal(held.values, SQUARES)
    with healing.pinned() as held:
        assert held.purged == 0
    assert counts(guest.cluster)["swap_out"] == 0
    assert guest.counters[Count.STABLE_FAILURES] == 8 + 3


def test_a_pinned_array_is_not_purged(guest, healing):
    """It is swapped out at most.  Volatile again, it owes nobody the copy: what is there no more is purged then."""
    with healing.pinned() as held:
        discard(guest.cluster, healing.first, healing.pages)
        assert states(guest)["Sp"] == 8
        assert np.array_equal(held.values, SQUARES)
        used = guest.faults == "hardware"                    # the pages themselves, and not a copy
    with healing.pinned() as held:
        assert held.purged == (0 if used else 8)


def test_pins_nest_and_the_outermost_decides(guest, healing):
    with healing.pinned() as outer:
        with healing.pinned() as inner:
            assert inner.purged == 0
            assert np.array_equal(inner.values, outer.values)
        assert discard(guest.cluster, healing.first, healing.pages) >= 0
        assert states(guest).get("Vr", 0) + states(guest).get("Vz", 0) == 0
        with pytest.raises(UsageProblem, match="read-only already"), healing.pinned(writable=True):
            pass
    assert states(guest).get("Sr", 0) == 0


def test_what_is_stored_while_pinned_is_there_until_it_is_discarded(guest, healing):
    with healing.pinned(writable=True) as held:
        held.values[:] = 7
    with healing.pinned() as held:
        assert (held.values == 7).all()
    discard(guest.cluster, healing.first, 1)
    with healing.pinned() as held:
        assert np.array_equal(held.values.reshape(-1)[:512], SQUARES.reshape(-1)[:512])
        assert (held.values.reshape(-1)[512:] == 7).all()


def test_what_is_stored_before_an_exception_is_as_in_memory(guest, healing):
    with suppress(ZeroDivisionError), healing.pinned(writable=True) as held:
        held.values[0] = 5
        raise ZeroDivisionError
    with healing.pinned() as held:
        assert (held.values[0] == 5).all()


def test_a_rebuildable_array_is_read_only_unless_it_is_asked_for_as_writable(healing):
    with healing.pinned() as held, pytest.raises(ValueError, match="read-only"):
        held.values[0] = 1


def test_a_stable_array_starts_as_zeros_and_is_kept_on_the_swap_disk(guest):
    array = guest.array(1024, "i4")
    with array.pinned(writable=True) as held:
        assert not held.values.any()
        held.values[:] = np.arange(1024)
    discard(guest.cluster, array.first, array.pages)
    with array.pinned() as held:
        assert (held.values == np.arange(1024)).all()
        assert held.purged == 0
    assert counts(guest.cluster)["swap_out"] == array.pages


def test_values_are_plain_memory_in_hardware_mode_alone(guest, healing):
    if guest.faults == "software":
        with pytest.raises(UsageProblem, match=r"inside `with array\.pinned"):
            np.asarray(healing)
        return
    discard(guest.cluster, healing.first, healing.pages)
    assert np.array_equal(healing.values, SQUARES)           # rebuilt under numpy's feet
    discard(guest.cluster, healing.first, 4)
    assert np.asarray(healing).sum() == SQUARES.sum()
    assert np.shares_memory(np.asarray(healing), guest.memory.view)
    with pytest.raises(ValueError, match="read-only"):
        healing.values[0] = 1
    with healing.pinned(writable=True):
        healing.values[0] = 1
    guest.array(8, "f8").values[:] = 1                       # stable: writable at any time
    assert counts(guest.cluster)["discard_faults"] >= 12


def test_released_pages_are_unused_and_free(guest, healing):
    with healing.pinned():
        pass
    healing.release()
    healing.release()
    assert states(guest) == {"Ur": 8, "Sz": PAGES - 8}
    with pytest.raises(UsageProblem, match="was released"), healing.pinned():
        pass
    assert guest.array(PAGES * 4096, "u1").first == 0


@pytest.mark.parametrize("rebuild", [None, lambda start, stop: np.arange(start, stop)])
def test_nothing_of_what_pages_held_shows_in_the_next_array(guest, healing, rebuild):
    """Neither its bytes, though they still had their frames, nor its rebuild function."""
    with healing.pinned():
        pass
    discard(guest.cluster, healing.first + 4, 2)
    healing.release()
    array = guest.array(512 * 10, "f8", rebuild=rebuild)
    assert array.first == 0
    with array.pinned() as held:
        assert np.array_equal(held.values, np.zeros(5120) if rebuild is None else np.arange(5120.0))


def test_an_array_over_all_the_memory_is_rebuilt_by_its_own_function(guest, healing):
    healing.release()
    array = guest.array(512 * PAGES, "f8", rebuild=lambda start, stop: np.arange(start, stop))
    with array.pinned() as held:
        assert np.array_equal(held.values, np.arange(512.0 * PAGES))


def test_arrays_side_by_side_know_their_own_functions(guest):
    arrays = [guest.array(700, "i4", rebuild=lambda start, stop, n=n: np.arange(start, stop) * n) for n in range(6)]
    for _ in range(3):
        discard(guest.cluster, 0, 12)
        for n, array in enumerate(arrays):
            with array.pinned() as held:
                assert np.array_equal(held.values, np.arange(700) * n)


def test_a_pinned_array_cannot_be_released(healing):
    with healing.pinned(), pytest.raises(UsageProblem, match="pinned"):
        healing.release()


@pytest.mark.parametrize(("what", "said"), [
    ({"shape": 0}, "every dimension must be 1 or more"),
    ({"shape": (3, -1)}, "every dimension must be 1 or more"),
    ({"shape": "many"}, "invalid literal"),
    ({"shape": 8, "dtype": "nonsense"}, "nonsense"),
    ({"shape": 8, "dtype": object}, "plain bytes"),
    ({"shape": 8, "dtype": "V0"}, "at least one each"),
    ({"shape": 8, "dtype": "V24", "rebuild": squares}, "an element's size, 24, must divide 4096"),
    ({"shape": 8, "rebuild": 5}, "rebuild must be a function"),
    ({"shape": PAGES * 512 + 1}, "260 KiB are asked for"),
])
def test_what_is_no_array_is_refused_with_one_line(guest, what, said):
    with pytest.raises(UsageProblem, match=said) as refusal:
        guest.array(**what)
    assert "\n" not in str(refusal.value)
    assert guest.array(PAGES * 512).pages == PAGES           # nothing of it was kept


def test_arrays_say_what_they_are(guest, healing):
    assert repr(healing) == "<array at page 0: (100, 40) float64, 8 pages from 0, rebuildable>"
    assert (healing.shape, healing.dtype, healing.nbytes) == (SHAPE, np.dtype("f8"), 32000)
    with healing.pinned() as held:
        assert repr(held) == "<pinned: (100, 40) float64, 8 pages had been purged>"
    assert repr(guest.array((), "f4", name="one")) == "<one: () float32, 1 pages from 8, stable>"


# what only software mode raises

@pytest.fixture
def software(machine):
    return machine(budget=64, swap=0).guest(pages=PAGES)


def test_what_rebuild_raises_is_raised_and_the_array_is_as_discarded_as_before(software):
    answers = [None]

    def rebuild(start, stop):
        if answers:
            raise KeyError("not now")
        return squares(start, stop)

    array = software.array(SHAPE, "f8", rebuild=rebuild)
    with pytest.raises(KeyError, match="not now"), array.pinned():
        pass
    answers.clear()
    with array.pinned() as held:
        assert held.purged == 8
        assert np.array_equal(held.values, SQUARES)


def test_a_page_that_had_a_frame_and_not_yet_its_bytes_never_passes_for_whole(software, monkeypatch):
    array = software.array(SHAPE, "f8", rebuild=squares)
    written = software.memory.write_many

    def half(gfns, pages):
        software.memory.make_resident(gfns)                  # frames, which read zero
        written(gfns[:4], pages[:4])
        raise OutOfMemory("no frame for the rest")

    monkeypatch.setattr(software.memory, "write_many", half)
    with pytest.raises(OutOfMemory), array.pinned():
        pass
    monkeypatch.undo()
    with array.pinned() as held:
        assert np.array_equal(held.values, SQUARES)


# restore functions, as they are called in either process

@pytest.mark.parametrize(("given", "dtype", "expected"), [
    (np.arange(4), "f8", [0.0, 1, 2, 3]), ([1, 2, 3, 4], "u1", [1, 2, 3, 4]), (np.ones((2, 2)), "f4", [1] * 4),
    (np.array([1.0, 2, 3, 4]), "i2", [1, 2, 3, 4]), (np.ones(4, bool), "i8", [1] * 4),
])
def test_elements_that_mean_the_same_are_taken(given, dtype, expected):
    page = Elements(lambda start, stop: given, 0, 4, np.dtype(dtype))(0, 1)
    assert len(page) == 4096
    assert np.frombuffer(page, dtype)[:4].tolist() == expected
    assert not any(page[4 * np.dtype(dtype).itemsize:])


@pytest.mark.parametrize(("given", "dtype"), [
    (np.array([0.5, 1, 2, 3]), "i8"), (np.array([300, 1, 2, 3]), "u1"), (np.array([-1, 1, 2, 3]), "u8"),
    (np.array([np.nan] * 4), "i4"), (np.ones(4, "c16"), "f8"), (["a"] * 4, "f8"), ([None] * 4, "f8"),
    (np.ones(3), "f8"), (np.ones(5), "f8"), (1.0, "f8"), (None, "f8"),
])
def test_elements_that_would_be_others_are_not(given, dtype):
    with pytest.raises(ValueError, match="it gave"):
        Elements(lambda start, stop: given, 0, 4, np.dtype(dtype))(0, 1)


def test_elements_are_asked_for_by_flat_indexes_within_the_array():
    asked = []

    def rebuild(start, stop):
        asked.append((start, stop))
        return np.zeros(stop - start)

    elements = Elements(rebuild, 10, 1300, np.dtype("f8"))
    assert [len(elements(gfn, pages)) for gfn, pages in ((10, 1), (11, 2), (12, 1))] == [4096, 8192, 4096]
    assert asked == [(0, 512), (512, 1300), (1024, 1300)]


@pytest.mark.parametrize("given", [4096, None, "a" * 4096, b"a" * 4095, bytearray(4097), [0] * 4096])
def test_a_page_is_4096_bytes_and_nothing_else(given):
    with pytest.raises((TypeError, ValueError)):
        EachPage(lambda gfn: given)(0, 1)
