"""Who swaps when memory is short, and what: E8, E10."""

from collections.abc import Mapping

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job
from hypervisor.toolstack.claims.setups import NUMBERS, grid

SHORT = (1.5, 2.0)
ANONYMOUS = (NUMBERS | {"count": 3, "options": {"table": "12MiB", "derived": "1MiB"}},)


def total(results: Results, counter: str, *schemes: str) -> int:
    """Return a counter, summed over the runs of these schemes."""
    return sum(found.value["counters"].get(counter, 0) for label, found in results.items()
               if label.split("/")[0] in schemes)


def volatile_jobs(size: Size) -> Mapping[str, Job]:
    return grid("common", ("cmm2", "cmm2+tmem"), SHORT, size.seeds[:3], size)


def never_swapped(results: Results) -> Answer:
    swapped, written = (total(results, name, "cmm2", "cmm2+tmem") for name in ("volatile_swap_writes", "swap_out"))
    discards = total(results, "discards", "cmm2", "cmm2+tmem")
    return Answer(ruled(swapped == 0 and discards > 0, swapped > 0),
                  f"{swapped} volatile pages among {written:,} that the hypervisor wrote to its swap disk; "
                  f"{discards:,} discards, {len(results)} runs", on="the guests: no page was discarded at all")


def stable_jobs(size: Size) -> Mapping[str, Job]:
    return grid("anonymous", ("cmm2", "tmem"), (2.0,), size.seeds[:3], size, ANONYMOUS)


def wrong_guess(results: Results) -> Answer:
    host = {scheme: total(results, "swap_out", scheme) for scheme in ("cmm2", "tmem")}
    guest = {scheme: total(results, "guest_swap_writes", scheme) for scheme in ("cmm2", "tmem")}
    supported = host["cmm2"] > 0 and host["tmem"] == 0 and guest["tmem"] > 0
    return Answer(ruled(supported, not host["cmm2"] or host["tmem"] > 0),
                  f"pages written to the hypervisor's swap disk: cmm2 {host['cmm2']:,}, tmem {host['tmem']:,}; to "
                  f"guests' own: cmm2 {guest['cmm2']:,}, tmem {guest['tmem']:,}",
                  "tmem's hypervisor has no swap disk, so its 0 is what the scheme is, and not a finding; with "
                  "write_back persistent pages do go to one", on="the guests: none of them swapped under tmem either")


CLAIMS = (
    Claim("E8", "Dan Magenheimer, Jul 2009", "c0e57d57",
          "when CMM2 guesses wrong the hypervisor must swap; with tmem it never does",
          "guests of mostly stable (anonymous) pages at overcommit 2, under cmm2 and under tmem",
          "supported if the hypervisor swaps under cmm2 and not one page under tmem, where guests swap instead; "
          "refuted if it does not swap under cmm2, or does under tmem", stable_jobs, wrong_guess),
    Claim("E10", "Anthony Liguori, 10 Jul 2009", "4A566414", "volatile pages are never swapped",
          "the common guests at overcommit 1.5 and 2 under cmm2 and cmm2+tmem",
          "supported if of all pages that the hypervisor wrote to its swap disk exactly 0 were volatile, and pages "
          "were discarded at all; refuted if one was", volatile_jobs, never_swapped),
)
