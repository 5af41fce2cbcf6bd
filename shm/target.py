"""The balloon's target: one word of a guest's content object, which the hypervisor writes and the guest maps read-only.

It lies in the last eight bytes, behind the content of the pages.  0: the hypervisor has not said anything.  Nobody
makes a guest heed it: one that does not loses frames by the hypervisor's own paging.
"""

import numpy as np

from shm.abi import PAGE_SIZE

_BYTES = 8


def content_pages(pages: int) -> int:
    """Return the size of the content object of a guest of `pages` pages, in pages: a byte a page, and the target."""
    return -(-(pages + _BYTES) // PAGE_SIZE)


def target_word(content: np.ndarray) -> np.ndarray:
    """Return the target (uint64, one item, in pages) in the bytes of a whole content object; a view."""
    return content[-_BYTES:].view("<u8")
