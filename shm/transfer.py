"""The transfer buffer: one a guest, through which every page crosses between it and the hypervisor.

    page 0      header: may the guest poll (hypervisor); from byte 1024 the old states that an ESSA found (hypervisor);
                from byte 2048 the frame numbers of a FAULT, BALLOON, ESSA or RELEASE (guest)
    pages 1-4   the entries of a multicall
    pages 5-    256 pages
    the last    the release list (`shm.releaselist`): not of a call, but under the state lock

Rule 1: it belongs to the guest until the request is sent, and to the hypervisor until the reply is.
Rule 2: that is a promise of a well-meaning guest only.  The hypervisor copies entries and frame numbers before it looks
        at them, and a page once, into its own memory, before anything is decided by its content.
"""

import numpy as np

from shm.abi import ENTRY, MULTICALL_LIMIT, PAGE_SIZE

_STATES_AT, _GFNS_AT, _ENTRIES_AT, _PAGES_AT = 1024, 2048, PAGE_SIZE, 5 * PAGE_SIZE
_RELEASES_AT = _PAGES_AT + MULTICALL_LIMIT * PAGE_SIZE
TRANSFER_PAGES = 5 + MULTICALL_LIMIT + 1
_MAY_POLL = 0


class Transfer:
    """Views into one transfer buffer, `buffer` being its bytes (uint8)."""

    def __init__(self, buffer: np.ndarray) -> None:
        self.header = buffer[:64].view("<u4")
        self.states = buffer[_STATES_AT:_STATES_AT + MULTICALL_LIMIT]
        self.gfns = buffer[_GFNS_AT:_ENTRIES_AT].view("<i8")
        self.entries = buffer[_ENTRIES_AT:_ENTRIES_AT + MULTICALL_LIMIT * ENTRY.itemsize].view(ENTRY)
        self.words = self.entries.view("<u8").reshape(MULTICALL_LIMIT, -1)       # the same, as numbers
        self.pages = buffer[_PAGES_AT:_RELEASES_AT].reshape(MULTICALL_LIMIT, PAGE_SIZE)
        self.releases = buffer[_RELEASES_AT:_RELEASES_AT + PAGE_SIZE].view("<i8")
        self._header = self.header.data
        self.first = self.pages[0].data

    @property
    def may_poll(self) -> bool:
        """Whether a core is free for the guest to poll on; written by the hypervisor."""
        return self._header[_MAY_POLL] != 0

    @may_poll.setter
    def may_poll(self, allowed: bool) -> None:
        self._header[_MAY_POLL] = int(allowed)
