"""Fairness: whose pages go when a guest's put needs room (Xen 4.2's documented rule; T56-T62).

Only the guest that asks is examined.  If it holds more of all ephemeral pages than its weight is of all weights, its
own oldest go; otherwise the oldest that are not its own.  Weight 0, or no weights at all: the oldest of all.

Xen's text has a guest below its share take the oldest of all, its own among them.  Where all put equally fast, the
oldest page is that of whoever has most: so the heavy guest evicts itself, and weights keep shares but never make them
(three guests of weights 1, 2 and 4 stay at a third each).  Hence "not its own".  That alone leaves those of weights 1
and 2 equal: who is over its share replaces its pages and keeps their number.  Hence it gives up SURPLUS pages for each
that it needs, down to its share, and the next that put find room.

Xen shipped the inequality the other way round from 2009 to 2018 (`quirks`): the guest below its share paid.
"""

from typing import NamedTuple

SURPLUS = 2                  # pages that a guest over its share gives up for each that it needs


class Standing(NamedTuple):
    """How the guest that asks stands, in pages and weights."""

    own: int                 # its ephemeral pages
    total: int               # all guests'
    weight: int
    total_weight: int


def over_share(standing: Standing, quirks: bool = False) -> bool:
    """Say whether the guest that asks pays with its own pages."""
    own, total, weight, total_weight = standing
    if not (own and weight and total_weight):
        return False
    if quirks:
        return total * 100 // own > total_weight * 100 // weight
    return own * total_weight > weight * total


def own_victims(standing: Standing, count: int, quirks: bool = False) -> int:
    """Return how many of its own pages the asking guest gives up for `count`: SURPLUS times as many at most.

    No more than bring it within its share: the fewest k with (own - k) / (total - k) <= weight / total_weight.  With
    the quirk every eviction makes the guest's share smaller still, so it pays for all.
    """
    if not over_share(standing, quirks):
        return 0
    own, total, weight, total_weight = standing
    if quirks or weight >= total_weight:
        return min(count, own)
    excess = own * total_weight - weight * total
    return min(SURPLUS * count, own, -(-excess // (total_weight - weight)))
