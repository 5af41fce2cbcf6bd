"""Errors, sorted by whose fault they are.

An answer that the protocol allows (a miss, a refused put) is a status, not an exception.  `str(error)` is one clear
line: what was wrong, what is allowed, what to do next.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np  # at run time only where a fault is raised: the pager, which is small, does without


class MemcommonsError(Exception):
    """Base of all errors raised by this project."""


class UsageProblem(MemcommonsError):
    """The person asked for what cannot be: a command prints the line and exits with 2."""


class BadHypercall(MemcommonsError):
    """A guest broke the protocol.  The hypervisor answers it and goes on."""


class UnknownCall(MemcommonsError):
    """A guest asked for a number that is no call's: answered with 0, as Xen did (T28)."""


class BrokenInvariant(MemcommonsError):
    """We broke our own rules: stop, and say which page and which rule."""


class HypervisorGone(MemcommonsError):
    """The hypervisor died, was stopped, or does not answer."""


class OutOfMemory(MemcommonsError):
    """The hypervisor has no frame for this guest now, even after reclaim."""


class TmemRefused(MemcommonsError):
    """A pool cannot be made or used; the line says which status came back."""


class PageFault(MemcommonsError):
    """Base of the faults that a guest's access raises; `gfns` are the pages concerned, in order of access."""

    what = "fault"

    def __init__(self, gfns: "Iterable[int] | np.ndarray") -> None:
        import numpy as np
        self.gfns = np.asarray(gfns, dtype=np.int64).reshape(-1)
        shown = ", ".join(map(str, self.gfns[:4].tolist())) + (", ..." if len(self.gfns) > 4 else "")
        super().__init__(f"{self.what}: page {shown}")


class OperationException(MemcommonsError):
    """The guest's processor has no such instruction: the cluster was started without CMMA (R12)."""


class PrivilegedOperation(MemcommonsError):
    """A privileged instruction in problem state (R12)."""


class SpecificationException(MemcommonsError, ValueError):
    """An order code that the instruction does not have (R12)."""


class DiscardFault(PageFault):
    """The guest touched pages that the host had discarded (state Vz; R26).  Nothing was changed by the touch."""

    what = "discard fault"


class AddressingException(PageFault):
    """The guest touched unused pages, or pages outside its memory (R24)."""

    what = "addressing exception"
