"""From whom the guest's own reclaim takes pages.  Decides; touches nothing.

Linux's order in short: file pages can be had again for a read, so they go first, but a small file cache is left in
peace; then what can be rebuilt and is idle; then anonymous pages, which cost a write each; and at last the rest of the
file cache.  A step is a wish: whoever carries it out may find fewer pages, and goes on with the next.
"""

from enum import IntEnum
from typing import NamedTuple

FLOOR_SHARE = 16             # one page in so many stays file cache while anonymous pages can go instead


class Source(IntEnum):
    FILE = 0
    IDLE = 1                 # rebuildable regions that nobody has pinned
    ANONYMOUS = 2


class Census(NamedTuple):
    """What there is at the moment of the question, in pages."""

    file: int
    idle: int
    anonymous: int
    total: int               # the guest's memory


class Step(NamedTuple):
    source: Source
    pages: int


def plan_reclaim(census: Census, wanted: int) -> list[Step]:
    """Return whom to ask, and for how many at most, in order; to be carried out until `wanted` pages are free."""
    others = census.idle + census.anonymous
    spare = max(0, census.file - census.total // FLOOR_SHARE) if others else census.file
    offers = [
        Step(Source.FILE, spare),
        Step(Source.IDLE, census.idle),
        Step(Source.ANONYMOUS, census.anonymous),
        Step(Source.FILE, census.file - spare),
    ]
    return [Step(source, min(pages, wanted)) for source, pages in offers if pages and wanted > 0]
