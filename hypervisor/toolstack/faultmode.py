"""Whose faults a run works with: the kernel's own (hardware, by userfaultfd) or the library's (software).

    software    asked for, or all that the kernel allows to `auto`
    hardware    asked for, or found by `auto`; for user mode alone where the user may have no more

Rule 1: it is decided once, before anything is started, for the baseline and every scheme; all guests are told the same.
        What was decided is what the summary says, for a guest that cannot do it is refused, and with it the run.
Rule 2: it is found out by making a userfaultfd, as a guest will, and not by reading settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shm.errors import UsageProblem
from shm.userfault import Userfault, open_userfault

SOFTWARE, HARDWARE, AUTO = "software", "hardware", "auto"


@dataclass(frozen=True, slots=True)
class FaultMode:
    """What was decided.  `why` is one line where `auto` fell back, else nothing."""

    name: str = SOFTWARE
    why: str = ""
    user_mode_only: bool = False         # hardware: faults inside system calls fail with EFAULT

    def facts(self) -> dict[str, Any]:
        """Return what the summary says of it."""
        fell_back = {"faults_why": self.why} if self.why else {}
        return {"faults": self.name, **fell_back, "user_mode_only": self.user_mode_only}


SOFTWARE_MODE = FaultMode()


def decided(wanted: str, probe: Callable[[], Userfault] = open_userfault) -> FaultMode:
    """Return the mode for `wanted` ("auto", "software", "hardware").

    UsageProblem, with the probe's one line that names what to change, when hardware is wanted and cannot be had.
    """
    if wanted == SOFTWARE:
        return SOFTWARE_MODE
    try:
        found = probe()
    except UsageProblem as problem:
        if wanted == HARDWARE:
            raise
        return FaultMode(why=str(problem))
    found.close()
    return FaultMode(HARDWARE, user_mode_only=found.user_mode_only)
