"""Dense numbers, given again once they were taken back, for what is kept in arrays by number; and how these grow.

Numbers never used come last, so an array by number is touched only as far as numbers were given: what `longer` adds is
memory that the kernel does not provide before it is written to.  One writer, whoever made it.
"""

from math import prod
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

import numpy as np

_FIRST_CAPACITY = 256
_LARGE = 1 << 18             # bytes


def longer(array: np.ndarray, size: int) -> np.ndarray:
    """Return `array` with zeros up to `size` rows."""
    shape = (size, *array.shape[1:])
    bytes_ = prod(shape) * array.itemsize
    if bytes_ < _LARGE:
        made = np.zeros(shape, array.dtype)
    else:                                        # not from malloc, which clears, and so touches, what it gives again
        made = np.frombuffer(mmap(-1, bytes_, MAP_PRIVATE | MAP_ANONYMOUS), array.dtype).reshape(shape)
    made[:len(array)] = array
    return made


def are_rising(numbers: np.ndarray) -> bool:
    """Say whether each is larger than the one before.  Counting is a quarter of what `all` takes."""
    return int(np.count_nonzero(numbers[1:] > numbers[:-1])) == len(numbers) - 1


def among(kinds: np.ndarray) -> list[int]:
    """Return which small numbers there are, each once, in order."""
    return np.bincount(kinds).nonzero()[0].tolist()


class Numbers:
    """Numbers from `first` on, below `capacity`, which doubles when they are all in use."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.capacity = _FIRST_CAPACITY
        self._top = first                        # numbers from here on were never used
        self._back = np.zeros(_FIRST_CAPACITY, np.uint32)    # a stack of those taken back
        self._words: memoryview[Any] = self._back.data
        self._count = 0                          # of these

    def __len__(self) -> int:
        return self._top - self.first - self._count

    @property
    def nbytes(self) -> int:
        return self._back.nbytes

    def make_room(self, count: int) -> bool:
        """Grow until `count` numbers are free; say whether that was needed."""
        if self._count + self.capacity - self._top >= count:
            return False
        while self._count + self.capacity - self._top < count:
            self.capacity *= 2
        self._back = longer(self._back, self.capacity)
        self._words = self._back.data
        return True

    def take_one(self) -> int:
        """Return a number for which there is room."""
        if self._count:
            self._count -= 1
            return self._words[self._count]
        self._top += 1
        return self._top - 1

    def take(self, count: int) -> np.ndarray:
        """Return `count` numbers (int64) for which there is room."""
        again = min(count, self._count)
        self._count -= again
        numbers = self._back[self._count:self._count + again].astype(np.int64)
        if again == count:
            return numbers
        fresh = np.arange(self._top, self._top + count - again)
        self._top += count - again
        return np.concatenate((numbers, fresh)) if again else fresh

    def give_one(self, number: int) -> None:
        self._words[self._count] = number
        self._count += 1

    def give(self, numbers: np.ndarray) -> None:
        """Take numbers back."""
        self._back[self._count:self._count + len(numbers)] = numbers
        self._count += len(numbers)
