"""Dense numbers: never one twice, taken back ones first, and arrays that cost only what is used of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.tmem.numbers import Numbers, are_rising, longer

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.booleans()), max_size=20)


@given(STEPS, st.integers(0, 3))
def test_no_number_is_out_twice(steps, first):
    numbers, out = Numbers(first), list[int]()
    for take, count, bulk in steps:
        if take:
            numbers.make_room(count)
            given_now = numbers.take(count).tolist() if bulk else [numbers.take_one() for _ in range(count)]
            assert len(given_now) == count and not set(given_now) & set(out)
            out += given_now
        else:
            back, out = out[:count], out[count:]
            if bulk:
                numbers.give(np.array(back, np.int64))
            else:
                for number in back:
                    numbers.give_one(number)
        assert len(numbers) == len(out)
        assert all(first <= number < numbers.capacity for number in out)


def test_what_was_given_back_comes_before_new_ones():
    numbers = Numbers()
    numbers.take(10)
    numbers.give(np.array([3, 4]))
    assert numbers.take(3).tolist() == [3, 4, 10]


@pytest.mark.parametrize("size", [10, 1 << 21])
def test_longer_keeps_what_there_was(size):
    made = longer(np.arange(6, dtype=np.uint32).reshape(3, 2), size)
    assert made.shape == (size, 2) and made.dtype == np.uint32
    assert made[:3].tolist() == [[0, 1], [2, 3], [4, 5]] and not made[3:].any()
    made[-1] = 7


def anonymous_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


def test_what_is_not_used_yet_costs_no_memory():
    before = anonymous_bytes()
    made = longer(np.ones(8, np.uint64), 1 << 25)
    assert made.nbytes == 1 << 28
    assert anonymous_bytes() - before < made.nbytes // 8


@pytest.mark.parametrize(("numbers", "rising"), [([], False), ([1], True), ([1, 2, 5], True), ([1, 1], False),
                                                 ([2, 1], False), ([1, 3, 2], False)])
def test_rising(numbers, rising):
    assert are_rising(np.array(numbers, np.int64)) == rising
