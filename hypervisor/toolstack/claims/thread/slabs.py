"""Memory that only a guest's own kernel can drop: dentries and inodes.  E13 and E21, on the same trials.

The host sees stable pages and no more.  Hints do not name them, a pool of pages cannot hold them; a balloon lets the
guest's own reclaim choose.
"""

from collections.abc import Mapping

from hypervisor.toolstack.claims.claim import Answer, Claim, Curves, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.stages import LIMIT_S, load, needs, order, part, runs

SCHEMES = ("cmm2", "balloon")
BUSY = "tmem, busy"              # the guest with the slabs works itself, alone, and has a pool
MAKER, SLAB, FILE = 0.4, 0.3, 0.05   # RAM of the guest with slabs, and what is in it, in parts of the other's
EATER = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9)     # anonymous working set, window by window
BUDGET = 1.0                     # of a guest's RAM, for two guests
OPERATIONS = 2500                # in a window
OWN, ROOMY = (0.2, 0.15), 1.5    # what the busy guest works on, file and anonymous, in RAM; its host's budget
SHRUNK = 0.1                     # of the slabs: less is not called shrinking


def jobs(size: Size) -> Mapping[str, Job]:
    return {f"{scheme}/{seed}": trial(scheme, seed) if scheme in SCHEMES else busy(seed)
            for seed in size.seeds[:3] for scheme in (*SCHEMES, BUSY)}


def trial(scheme: str, seed: int) -> Trial:
    return Trial("slabs", order(scheme, BUDGET, balloon={"controller": "shares"}), {
        "maker": needs(FILE, 0, MAKER), "eater": needs(0, max(EATER)), "slab": part(SLAB), "file": part(FILE),
        "loads": [[0, part(share)] for share in EATER], "work": OPERATIONS, "seed": seed}, LIMIT_S)


def busy(seed: int) -> Trial:
    return Trial("slabs", order("tmem", ROOMY), {
        "maker": needs(*OWN, MAKER), "eater": needs(0, 0, MAKER), "slab": part(SLAB), "file": part(FILE), "loads": [],
        "work": 0, "busy": load(OWN), "busy_work": 2 * OPERATIONS, "seed": seed}, LIMIT_S)


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
    figure = "; ".join(f"{scheme}: {free[scheme]:,} of {had(results, scheme):,} slab pages let go without a write, "
                       f"{written[scheme]:,} pages of that guest swapped by the hypervisor, {again[scheme]:,} read "
                       f"when all slabs were looked at again" for scheme in SCHEMES)
    lost, slabs_back, files_back = by_itself(results)
    helped = slabs_back > 0
    return Answer(ruled(not free["cmm2"] and free["balloon"] > 0 and lost > 0 and files_back > 0 and not helped,
                        free["cmm2"] > 0 or helped or not free["balloon"]),
                  f"{figure}; a busy guest under tmem dropped {lost:,} slab pages itself, of which {slabs_back:,} came "
                  f"back from the pool, as did {files_back:,} pages of its files; counts are sums of {runs(results)}",
                  "the rest of the claim, that CMM2 is one LRU over all guests with feedback, says what it is and "
                  "predicts no figure", curves(results), on="the load: the busy guest dropped no slabs, or no file "
                  "page came back from its pool")


def by_itself(results: Results) -> tuple[int, int, int]:
    """Return slab pages that the busy guest dropped, of these what a pool gave back, and file pages that it did."""
    found = [one.value["busy"] for label, one in results.items() if label.split("/")[0] == BUSY]
    return (sum(each["slab"][0] - each["slab"][1] for each in found),
            sum(each["walked"]["cleancache_hits"] for each in found),
            sum(each["worked"]["cleancache_hits"] for each in found))


def pressure(results: Results) -> Answer:
    share = {scheme: dropped(results, scheme) / had(results, scheme) for scheme in SCHEMES}
    swapped = {scheme: total(results, scheme, "grown", "host_out") for scheme in SCHEMES}
    return Answer(ruled(share["cmm2"] == 0 and swapped["cmm2"] > 0 and share["balloon"] > SHRUNK,
                        share["cmm2"] > SHRUNK or not swapped["cmm2"]),
                  f"slabs shrank by {share['cmm2']:.0%} under cmm2, where the hypervisor swapped {swapped['cmm2']:,} "
                  f"pages of that guest, and by {share['balloon']:.0%} under balloon ({swapped['balloon']:,} swapped); "
                  f"counts are sums of {runs(results)}", "", curves(results),
                  on="the balloon, which hardly shrank them")


def curves(results: Results) -> Curves:
    """Return what the guest keeps and what it has in frames, window by window, of the first seed."""
    first = {label.split("/")[0]: found.value for label, found in reversed(list(results.items()))}
    lines = [{"name": f"{scheme}, {name}", "points": [[n, float(pages), None] for n, pages in enumerate(value[row])]}
             for scheme, value in first.items() if scheme in SCHEMES
             for name, row in (("slab pages", "slab"), ("frames", "frames"))]
    return ({"title": "a guest of slabs beside one that grows", "x": "windows", "y": "pages", "lines": lines},)


SETUP = (f"a guest of {part(MAKER)} pages keeps {part(SLAB)} of them as slabs, read from its disk, and {part(FILE)} as "
         f"file cache, and idles; another's anonymous working set grows to {part(max(EATER))}, in {part(BUDGET)} "
         "frames for both; then the first looks at its slabs again; slabs are never hinted. And alone, under tmem, it "
         f"works on {part(OWN[0])} pages of a file and {part(OWN[1])} anonymous ones, for which its own reclaim makes "
         "room")
CLAIMS = (
    Claim("E13", "Avi Kivity, 12 Jul 2009", "4A5A1D15",
          "CMM2 is one LRU with drop or swap and feedback, the policy of a balloon is hard; and the dcache is not "
          "helped by tmem", SETUP,
          "supported if without a write nothing of the slabs can be had under cmm2, and something under balloon, and "
          "of the slabs that a busy guest drops under tmem nothing comes back from the pool, as pages of its files "
          "do; refuted if something can be had under cmm2 or nothing under balloon, or slabs come back", jobs,
          reclaimable),
    Claim("E21", "Jeremy Fitzhardinge, Mar 2009", "49D6532C",
          "hinting puts no pressure on the guest, so its caches and slabs never shrink", SETUP,
          "supported if slabs do not shrink under cmm2 while the hypervisor swaps some of them, and shrink by more "
          f"than {SHRUNK:.0%} under balloon; refuted if they shrink by that under cmm2, or nothing of them is swapped",
          jobs, pressure),
)
