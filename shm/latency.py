"""How long operations took: a log-linear histogram, eight buckets an octave, as a plain list of counts.

A bucket is at most an eighth of its value wide, whatever the value.  Cheap enough for every operation: a shift and an
addition, no numpy.  Nanoseconds; what takes longer than 2^48 of them (three days) counts as that.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, zip_longest
from typing import Any

LONGEST_NS = (1 << 48) - 1
BUCKETS = (48 - 4) * 8 + 16


def bucket_of(ns: int) -> int:
    """Return the bucket of a time; the last one's for whatever is longer than LONGEST_NS."""
    shift = ns.bit_length() - 4
    if shift <= 0:
        return ns
    return shift * 8 + (ns >> shift) if shift <= 44 else BUCKETS - 1


def upper_ns(bucket: int) -> int:
    """Return the longest time that belongs to a bucket."""
    shift = max(0, bucket // 8 - 1)
    return ((bucket - shift * 8 + 1) << shift) - 1


def empty() -> list[int]:
    return [0] * BUCKETS


def trimmed(counts: Sequence[int]) -> list[int]:
    """Return the counts without the empty buckets behind the last full one."""
    last = next((n for n in range(len(counts), 0, -1) if counts[n - 1]), 0)
    return list(counts[:last])


def merged(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Return the histogram of all operations together."""
    return [sum(column) for column in zip_longest(*histograms, fillvalue=0)]


def percentile(counts: Sequence[int], percent: float) -> int | None:
    """Return a time that `percent` of the operations did not exceed, as a bucket's upper end; None of no operation."""
    total = sum(counts)
    wanted = percent / 100 * total
    return next((upper_ns(n) for n, below in enumerate(accumulate(counts)) if below and below >= wanted), None)


def figures(counts: Sequence[int]) -> dict[str, int | None]:
    """Return p50, p99 and the longest, in nanoseconds."""
    return {"p50": percentile(counts, 50), "p99": percentile(counts, 99), "max": percentile(counts, 100)}


def checked(raw: Any, operations: int) -> list[int] | None:
    """Return a histogram that somebody reported of his `operations`; None when it cannot be one."""
    if not isinstance(raw, list) or len(raw) > BUCKETS:
        return None
    if any(type(count) is not int or count < 0 for count in raw):
        return None
    return raw if sum(raw) == operations else None
