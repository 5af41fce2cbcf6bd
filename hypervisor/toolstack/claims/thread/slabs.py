"""Memory that only a guest's own kernel can drop: dentries and inodes.  E13 and E21, on the same trials.

The host sees stable pages and no more.  Hints do not name them, a pool of pages cannot hold them; a balloon lets the
guest's own reclaim choose.
"""

from collections.abc import Mapping

from hypervisor.toolstack.claims.claim import Answer, Claim, Curves, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.stages import LIMIT_S, needs, order, part, runs

SCHEMES = ("cmm2", "tmem", "balloon")
MAKER, SLAB, FILE = 0.4, 0.3, 0.05   # RAM of the guest with slabs, and what is in it, in parts of the other's
EATER = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9)     # anonymous working set, window by window
BUDGET = 1.0                     # of a guest's RAM, for two guests
OPERATIONS = 2500                # in a window
SHRUNK = 0.1                     # of the slabs: less is not called shrinking


def jobs(size: Size) -> Mapping[str, Job]:
    return {f"{scheme}/{seed}": trial(scheme, seed)
            for seed in size.seeds[:3] for scheme in SCHEMES}


def trial(scheme: str, seed: int) -> Trial:
    ram = BUDGET - MAKER if scheme == "tmem" else 1.0        # nothing takes memory from a guest under tmem
    return Trial("slabs", order(scheme, BUDGET, balloon={"controller": "shares"}), {
        "maker": needs(FILE, 0, MAKER), "eater": needs(0, max(EATER), ram), "slab": part(SLAB), "file": part(FILE),
        "loads": [[0, part(share)] for share in EATER], "work": OPERATIONS, "seed": seed}, LIMIT_S)


def total(results: Results, scheme: str, stage: str, *names: str) -> int:
    """Return counters of the guest with the slabs, summed over the seeds."""
    return sum(found.value[stage][name] for label, found in results.items() if label.split("/")[0] == scheme
               for name in names)


def dropped(results: Results, scheme: str) -> int:
    """Return the pages of slabs that the guest let go without a write, summed over the seeds."""
    return sum(found.value["slab"][0] - found.value["slab"][-1] for label, found in results.items()
               if label.split("/")[0] == scheme)


def had(results: Results, scheme: str) -> int:
    """Return the pages of slabs that there were before the other guest grew."""
    return sum(found.value["slab"][0] for label, found in results.items() if label.split("/")[0] == scheme)


def reclaimable(results: Results) -> Answer:
    free = {scheme: dropped(results, scheme) for scheme in SCHEMES}
    written = {scheme: total(results, scheme, "grown", "host_out") for scheme in SCHEMES}
    again = {scheme: total(results, scheme, "walked", "host_in", "file_reads") for scheme in SCHEMES}
    figure = "; ".join(f"{scheme}: {free[scheme]:,} of {had(results, scheme):,} slab pages let go without I/O, "
                       f"{written[scheme]:,} pages swapped by the hypervisor, {again[scheme]:,} read when they were "
                       f"wanted again" for scheme in SCHEMES)
    return Answer(ruled(not free["cmm2"] and not free["tmem"] and free["balloon"] > 0,
                        free["cmm2"] > 0 or free["tmem"] > 0 or not free["balloon"]), f"{figure}; {runs(results)}",
                  "the rest of the claim, that CMM2 is one LRU over all guests with feedback, says what it is and "
                  "predicts no figure", curves(results))


def pressure(results: Results) -> Answer:
    share = {scheme: dropped(results, scheme) / had(results, scheme) for scheme in ("cmm2", "balloon")}
    swapped = {scheme: total(results, scheme, "grown", "host_out") for scheme in ("cmm2", "balloon")}
    return Answer(ruled(share["cmm2"] == 0 and swapped["cmm2"] > 0 and share["balloon"] > SHRUNK,
                        share["cmm2"] > SHRUNK or not swapped["cmm2"]),
                  f"slabs shrank by {share['cmm2']:.0%} under cmm2, where the hypervisor swapped {swapped['cmm2']:,} "
                  f"of their pages, and by {share['balloon']:.0%} under balloon ({swapped['balloon']:,} swapped); "
                  f"{runs(results)}", "" if share["balloon"] > SHRUNK else "of the balloon, which hardly shrank them",
                  curves(results))


def curves(results: Results) -> Curves:
    """Return what the guest keeps and what it has in frames, window by window, of the first seed."""
    first = {label.split("/")[0]: found.value for label, found in reversed(list(results.items()))}
    lines = [{"name": f"{scheme}, {name}", "points": [[n, float(pages), None] for n, pages in enumerate(value[row])]}
             for scheme, value in first.items() for name, row in (("slab pages", "slab"), ("frames", "frames"))]
    return ({"title": "a guest of slabs beside one that grows", "x": "windows", "y": "pages", "lines": lines},)


SETUP = (f"a guest of {part(MAKER)} pages keeps {part(SLAB)} of them as slabs, read from its disk, and {part(FILE)} as "
         f"file cache, and idles; another's anonymous working set grows to {part(max(EATER))}, in {part(BUDGET)} "
         "frames for both; then the first looks at its slabs again")
CLAIMS = (
    Claim("E13", "Avi Kivity, 12 Jul 2009", "4A5A1D15",
          "CMM2 is one LRU with drop or swap and feedback, the policy of a balloon is hard; and the dcache is not "
          "helped by tmem", SETUP,
          "supported if without I/O nothing of the slabs can be had under cmm2 and tmem, and something under balloon; "
          "refuted if one of the three is otherwise", jobs, reclaimable),
    Claim("E21", "Jeremy Fitzhardinge, Mar 2009", "49D6532C",
          "hinting puts no pressure on the guest, so its caches and slabs never shrink", SETUP,
          "supported if slabs do not shrink under cmm2 while the hypervisor swaps some of them, and shrink by more "
          f"than {SHRUNK:.0%} under balloon; refuted if they shrink by that under cmm2, or nothing of them is swapped",
          jobs, pressure),
)
