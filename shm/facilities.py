"""What a guest's processor can do with ESSA, and which exception it answers with where it cannot (R12).

    architected   the whole instruction, as z/VM and the CMM2 patches (v4 to v7) have it
    kvm           as KVM has it: code 6 only where there is a frame, code 5 pages nothing in, a batched release list
    off           no CMMA: the instruction is not there, and a guest is told of no hints

One row of CMMA a cluster, by its setting `cmma`; the attach reply tells the guest.  Order of priority: operation,
privileged operation, specification, and addressing, which is the state map's to find.  None of them alters any state.
"""

from typing import NamedTuple

from shm.errors import OperationException, PrivilegedOperation, SpecificationException
from shm.pagestate import Essa

HINTS = frozenset({"hint-unused", "hint-volatile"})


class Facilities(NamedTuple):
    """The facilities of one guest's processor."""

    cmma: bool = True
    kvm: bool = False
    no_dat: bool = True      # facility 147: order code 7 exists

    @property
    def orders(self) -> range:
        """The order codes that the instruction has."""
        return range(len(Essa) - (not self.no_dat)) if self.cmma else range(0)

    def check(self, order: int, problem_state: bool = False) -> None:
        """Raise the exception that ESSA with this order ends in; return where there is none."""
        if not self.cmma:
            raise OperationException("ESSA: this cluster has no CMMA; serve one with --cmma architected or kvm")
        if problem_state:
            raise PrivilegedOperation("ESSA is for the guest's kernel: this processor is in problem state")
        if order not in self.orders:
            raise SpecificationException(f"ESSA: {order} is no order code here; use 0 to {len(self.orders) - 1}")

    def offered(self, features: frozenset[str]) -> frozenset[str]:
        """Return what a scheme switches on, without hints where there is no instruction to give them."""
        return features if self.cmma else features - HINTS


CMMA: dict[str, Facilities] = {
    "architected": Facilities(), "kvm": Facilities(kvm=True), "off": Facilities(cmma=False, no_dat=False),
}
