"""Restore functions as the pager calls them: (gfn, pages) -> the pages' bytes.  Copied there, so plain data and calls.

No numpy at import: the pager has none unless a function brings it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

PAGE = 4096


class EachPage:
    """`restore(gfn) -> 4096 bytes`, asked for one page after the other."""

    def __init__(self, restore: Callable[[int], bytes]) -> None:
        self.restore = restore

    def __call__(self, gfn: int, pages: int) -> bytes:
        # Not bytes(...) alone: of a number it would be that many zeros, which nobody gave.
        found = [bytes(memoryview(self.restore(number))) for number in range(gfn, gfn + pages)]
        wrong = next((len(page) for page in found if len(page) != PAGE), None)
        if wrong is not None:
            raise ValueError(f"it gave {wrong} bytes for a page of {PAGE}")
        return b"".join(found)


class Elements:
    """`rebuild(start, stop) -> elements` of an array whose page 0 is page `first` of the guest."""

    def __init__(self, rebuild: Callable[[int, int], Any], first: int, size: int, dtype: "np.dtype[Any]") -> None:
        self.rebuild, self.first, self.size, self.dtype = rebuild, first, size, dtype

    def __call__(self, gfn: int, pages: int) -> bytes:
        each = PAGE // self.dtype.itemsize
        start = (gfn - self.first) * each
        stop = min(self.size, start + pages * each)
        found = _elements(self.rebuild(start, stop), self.dtype)
        if len(found) != stop - start:
            raise ValueError(f"it gave {len(found)} elements for {start} to {stop}")
        return found.tobytes().ljust(pages * PAGE, b"\0")


def _elements(given: Any, dtype: "np.dtype[Any]") -> "np.ndarray":
    """Return what was given as elements of `dtype`; ValueError where that would be other elements."""
    import numpy as np
    found = np.asarray(given).reshape(-1)
    if np.can_cast(found.dtype, dtype, "same_kind"):
        return found.astype(dtype)
    with np.errstate(invalid="ignore"):                      # of what is no number: it compares unequal
        cast = found.astype(dtype if found.dtype.kind in "biuf" else found.dtype)
    if cast.dtype != dtype or not np.array_equal(cast, found):
        raise ValueError(f"it gave {found.dtype} elements, and not all of them can be {dtype}")
    return cast
