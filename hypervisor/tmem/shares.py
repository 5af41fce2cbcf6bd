"""Fairness: whose pages go when a guest's put needs room (Xen 4.2's documented rule; T56-T62).

Only the guest that asks is examined.  If it holds more of all ephemeral pages than its weight is of all weights, its
own oldest go; otherwise the oldest of all.  Weight 0, or no weights at all: the oldest of all.

Xen shipped the inequality the other way round from 2009 to 2018 (`quirks`): the guest below its share paid.
"""

from typing import NamedTuple


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
    """Return how many of the next `count` evictions are of the asking guest's own pages, before it is within its share.

    The documented rule: the fewest k with (own - k) / (total - k) <= weight / total_weight.  With the quirk every
    eviction makes the guest's share smaller still, so it pays for all.
    """
    if not over_share(standing, quirks):
        return 0
    own, total, weight, total_weight = standing
    if quirks or weight >= total_weight:
        return min(count, own)
    excess = own * total_weight - weight * total
    return min(count, own, -(-excess // (total_weight - weight)))
