"""Who pays for a page that two levels of memory management both want out: E19 and E34, and the I/O ledger (2.7)."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, Verdict, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.setups import NUMBERS, grid
from shm.abi import PAGE_SIZE

MIB = 1 << 20
PAGES = 32                               # that each row of the ledger is played with
COLUMNS = ("swap", "cmm2", "balloon", "tmem")
STABLE, CLEAN = "4 S", "4 V+"            # keys of rows: the two states of an anonymous page
THIRD, NEAR = 1 / 3, 0.02
SHORT = 1.5
LEVELS = ("swap", "balloon", "cmm2", "cmm2+tmem")
BOTH = (NUMBERS | {"count": 3, "options": {"table": "18MiB", "derived": "1MiB"}},)
OPERATIONS = 1000

GUEST = 512                              # pages of the guest of E34
ARMS = {"none": ("swap", False), "bitmap": ("swap", True), "cmm2": ("cmm2", False), "both": ("cmm2", True)}
FEW, MANY = 0.1, 0.5                     # of the pages that are paged twice without


def double_jobs(size: Size) -> Mapping[str, Job]:
    played: dict[str, Job] = {f"ledger/{scheme}": ledger(scheme) for scheme in COLUMNS}
    return played | dict(grid("both", LEVELS, (SHORT,), size.seeds[:3], size, BOTH, OPERATIONS))


def ledger(scheme: str) -> Trial:
    """Return the trial of one column of the ledger."""
    return Trial("ledger", {"scheme": scheme, "budget": 32 * MIB, "swap": 16 * MIB}, {"pages": PAGES})


def cells(results: Results) -> list[Mapping[str, Any]]:
    """Return all cells that were played."""
    return [row for scheme in COLUMNS for row in results[f"ledger/{scheme}"].value["rows"]]


def counted(played: Sequence[Mapping[str, Any]], key: str, column: str) -> float:
    """Return the transfers a page of one cell."""
    [cell] = [cell for cell in played if (cell["key"], cell["column"]) == (key, column)]
    return sum(cell["counted"])


def ratio(played: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return what hints leave of the transfers of a row."""
    return counted(played, key, "with hints") / counted(played, key, "no hints")


def rows_said(played: Sequence[Mapping[str, Any]]) -> str:
    """Return the ledger in words: each row, and what was counted in each of its columns."""
    rows: dict[str, list[str]] = {}
    for cell in played:
        mark = " (not in the table)" if cell["same"] is None else "" if cell["same"] else " (TABLE SAYS OTHERWISE)"
        rows.setdefault(cell["row"], []).append(f"{cell['column']} {cell['said']}{mark}")
    return "; ".join(f"{row}: {', '.join(columns)}" for row, columns in rows.items())


def twice(results: Results, scheme: str) -> str:
    """Return how many of 1000 pages that the host swapped out the guest then swapped too, over the runs of a scheme.

    The ledger does not hang on them: what did not finish is left out, and said.
    """
    found = [one for label, one in results.items() if label.startswith(f"{scheme}/")]
    runs = [one.value["counters"] for one in found if not one.failed]
    out, again = (sum(run.get(name, 0) for run in runs) for name in ("swap_out", "double_paged"))
    left = f" ({len(found) - len(runs)} of {len(found)} runs did not finish)" if len(runs) < len(found) else ""
    return f"{scheme} {1000 * again / out if out else 0:.0f}{left}"


def double_paging(results: Results) -> Answer:
    played = cells(results)
    wrong = [f"{cell['row']}, {cell['column']}" for cell in played if cell["same"] is False]
    if wrong:
        return Answer(Verdict.NOT_TESTED, rows_said(played), f"the ledger is not the table's: {', '.join(wrong)}")
    said = [cell for cell in played if cell["same"]]
    stable, clean = ratio(played, STABLE), ratio(played, CLEAN)
    thirds = [abs(found - THIRD) <= NEAR for found in (stable, clean)]
    runs = ", ".join(twice(results, scheme) for scheme in LEVELS)
    figure = (f"{len(said)} of {len(said)} cells of the ledger (docs/measuring.md) are as the table says, {PAGES} "
              f"pages each; with hints / without: {stable:.2f} for stable anonymous pages, {clean:.2f} for pages clean "
              f"in swap cache that are used again; of 1000 pages that the host swapped the guest swapped too: {runs}")
    return Answer(ruled(all(thirds), not any(thirds)), figure, f"transfers a page: {rows_said(played)}",
                  on="the state of the page")


def spare_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{arm}/{seed}": pressure(scheme, spare, seed, size.operations(8000))
            for seed in size.seeds for arm, (scheme, spare) in ARMS.items()}


def pressure(scheme: str, spare: bool, seed: int, operations: int) -> Trial:
    """Return the trial of a guest that is short of memory on a host that is short of frames, too."""
    return Trial("pressure", {"scheme": scheme, "budget": int(GUEST / SHORT) * PAGE_SIZE, "swap": 16 * MIB},
                 {"pages": GUEST, "anonymous": 560, "file": 160, "operations": operations, "seed": seed,
                  "kernel": {"spare_evicted": spare}})


def sparing(results: Results) -> Answer:
    runs = {arm: [found.value for label, found in results.items() if label.split("/")[0] == arm] for arm in ARMS}
    triples = {arm: fmean(1000 * run["double_paged"] / run["evictions"] for run in found)
               for arm, found in runs.items()}
    transfers = {arm: fmean(run["total"] for run in found) for arm, found in runs.items()}
    spared = triples["bitmap"] / triples["none"] if triples["none"] else 1.0
    asked = runs["bitmap"]
    looks = sum(run["looks"] for run in asked) / max(1, sum(run["reclaimed_pages"] for run in asked))
    figure = ("pages paged by both, of 1000 evictions: " + ", ".join(f"{arm} {triples[arm]:.0f}" for arm in ARMS)
              + "; transfers: " + ", ".join(f"{arm} {transfers[arm] / transfers['none']:.2f}" for arm in ARMS)
              + f" of none's; runs of each: {len(asked)}")
    return Answer(ruled(spared <= FEW, spared > MANY), figure,
                  f"a page that is reclaimed costs {looks:.1f} looks at the bitmap; by ESSA a look takes "
                  f"{fmean(run['essa_a_look'] for run in asked):.1f} times as long",
                  on="how much is much: some are left")


CLAIMS = (
    Claim("E19", "Avi Kivity, Anthony Liguori, Dan Magenheimer, Jul 2009; Dave Hansen, Mar 2009", "v7 thread",
          "a page that host and guest both swap costs three transfers, and page hinting removes two thirds of that I/O",
          "every row of the ledger played with 32 pages, in software mode: no hints, hints, balloon, tmem; and three "
          "guests of 18 MiB of anonymous pages in 16 MiB each at overcommit 1.5, the host's swap on under all schemes",
          "supported if with hints a third of the transfers is left, for stable anonymous pages and for those clean in "
          "swap cache; refuted if for neither; not tested if a cell of the ledger is not what the table says",
          double_jobs, double_paging),
    Claim("E34", "Dave Hansen, Rik van Riel, Martin Schwidefsky, 27 to 30 Mar 2009", "20090330183405",
          "guest reclaim that passes over pages the host has evicted avoids the triple I/O, without volatile pages",
          "one guest, 720 pages of data in 512 of memory, overcommit 1.5; its reclaim may look at the content states, "
          "which it has mapped; file pages and pages of the swap cache cost no triple, and are not passed over",
          "supported if the bitmap alone leaves at most a tenth of the pages that both page; refuted if it leaves more "
          "than half", spare_jobs, sparing),
)
