"""The time that one use of `memcommons curves` has: it ends by itself between two runs, and `--resume` goes on.

A run that is likely to end after the part is not begun; as likely counts what the longest run of the part took.  The
first run of a part is always begun, so that each part brings something.
"""

import math
import time
from collections.abc import Callable, Sequence

from shm.errors import UsageProblem

MOST_MINUTES = 60.0


def checked_minutes(minutes: float) -> float:
    """Return the length of a part in minutes; UsageProblem when it is none."""
    if not math.isfinite(minutes) or not 0 < minutes <= MOST_MINUTES:
        raise UsageProblem(f"--minutes: {minutes:g} is not possible; allowed: above 0, at most {MOST_MINUTES:g}; "
                           f"--resume goes on with a further part")
    return minutes


class Part:
    """One part, which begins when it is made.  `clock`: seconds, monotonic."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self._clock = clock
        self._end = clock() + 60 * minutes

    def over(self, took: Sequence[float]) -> bool:
        """Say whether one more run would end too late; `took`: seconds of each run of this part."""
        return bool(took) and self._clock() + max(took) > self._end
