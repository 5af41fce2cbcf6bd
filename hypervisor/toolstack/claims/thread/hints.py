"""What a hint costs, who may write it, and whether the host could do without: E22, E27, E28."""

from collections.abc import Mapping
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from shm.abi import PAGE_SIZE
from shm.diskcost import MODELS

MIB = 1 << 20
AMPLE = {"budget": 32 * MIB, "swap": 16 * MIB}
ROUNDS, SCRIBBLED = 100, 20              # of the costs, and of the host's beside a guest that scribbles
CHEAPER = 1.5                            # a hypercall's time / the shared array's, at the least

GUEST, ANONYMOUS, FILE = 512, 200, 220   # pages
OVERCOMMITS = (0.75, 1.0, 1.25, 1.5, 2.0)
ROOMY = OVERCOMMITS[0]
COSTS_NS = (0, 50, 1000, 5000)           # of one ESSA; Schwidefsky: more than 100 cycles
STATED_NS = 50                           # ... which these are, at 2 GHz
TOUCH_NS = 1000                          # of one page without hints: 4 KiB at 4 GB/s
VIABLE = 0.05                            # slower than without hints, at most
WAYS = ("optimised", "stable")
DISK_NS = MODELS["ssd"].latency_ns

MAPPED_PAGES = 64
NATIVE, MAPPER, NEITHER = "volatile", "mapper", "neither"


def path_jobs(size: Size) -> Mapping[str, Job]:
    return {"paths": Trial("hintpaths", {"scheme": "cmm2", **AMPLE},
                           {"rounds": size.operations(ROUNDS), "scribbled": size.operations(SCRIBBLED)})}


def array_enough(results: Results) -> Answer:
    found = results["paths"].value
    costs, malice = found["costs"], found["malice"]
    harm = {name: malice[name] for name in ("neighbours_wrong_pages", "audit_problems", "drift_frames", "bad_contents",
                                            "host_half_written")}
    cheaper = all(cost["ratio"] >= CHEAPER and not cost["hypercalls"]["shared"] for cost in costs)
    ratios = ", ".join(f"{cost['batch']} a time: {cost['ratio']:.0f} ({cost['ns_a_page']['shared']:,.0f} ns a page by "
                       f"the array)" for cost in costs)
    figure = (f"a hint by hypercall takes so many times as long as one by the array, pages {ratios}; of a guest that "
              f"scribbled {malice['scribbles']:,} bytes: {sum(map(int, harm.values()))} things wrong outside it, "
              f"{malice['own_lost_pages']} of its own 256 pages lost")
    wrong = ", ".join(f"{name} {int(count)}" for name, count in harm.items() if count)
    return Answer(ruled(cheaper and not wrong, bool(wrong) or not cheaper), figure,
                  wrong or "as long as the host keeps its own half: it trusts no byte of the guest's, and the guest's "
                  "half decides about the guest's pages alone")


def cost_jobs(size: Size) -> Mapping[str, Job]:
    arms = {"none": ("swap", "optimised")} | {way: ("cmm2", way) for way in WAYS}
    return {f"{arm}/{overcommit:g}": touches(scheme, way, overcommit, size.operations(8000))
            for overcommit in OVERCOMMITS for arm, (scheme, way) in arms.items()}


def touches(scheme: str, way: str, overcommit: float, operations: int) -> Trial:
    return Trial("pressure", {"scheme": scheme, "budget": int(GUEST / overcommit) * PAGE_SIZE, "swap": 16 * MIB},
                 {"pages": GUEST, "anonymous": ANONYMOUS, "file": FILE, "operations": operations, "seed": 1,
                  "kernel": {"minor_faults": way}})


def spent(run: Mapping[str, Any], cost_ns: int) -> float:
    """Return the nanoseconds of an operation: its touch, its hints, its transfers on a disk like an ssd."""
    return TOUCH_NS + (run["essa"] * cost_ns + run["total"] * DISK_NS) / run["operations"]


def slower(results: Results, way: str, overcommit: float, cost_ns: int) -> float:
    """Return how much slower hints make an operation than none; below 0: faster."""
    run, none = (results[f"{arm}/{overcommit:g}"].value for arm in (way, "none"))
    return spent(run, cost_ns) / spent(none, cost_ns) - 1


def break_even(results: Results, way: str, cost_ns: int) -> str:
    """Return the least overcommit from which hints are faster than none."""
    gains = [overcommit for overcommit in OVERCOMMITS if slower(results, way, overcommit, cost_ns) < 0]
    return f"{min(gains):g}" if gains else "none"


def bearable_ns(results: Results, way: str) -> float | None:
    """Return the cost of an ESSA up to which hints are viable where nothing is short; None: whatever it is."""
    run, none = (results[f"{arm}/{ROOMY:g}"].value for arm in (way, "none"))
    left = (1 + VIABLE) * spent(none, 0) - spent(run, 0)
    return max(0.0, left * run["operations"] / run["essa"]) if run["essa"] else None


def decides(results: Results) -> Answer:
    viable = {cost: [slower(results, way, ROOMY, cost) <= VIABLE for way in WAYS] for cost in COSTS_NS}
    deciding = [cost for cost, (with_it, without) in viable.items() if with_it and not without]
    each = {way: results[f"{way}/{ROOMY:g}"].value for way in WAYS}
    hints = ", ".join(f"{each[way]['essa'] / each[way]['operations']:.2f} {way}" for way in WAYS)
    lines = "; ".join(f"{cost / 1000:g} us: {_percents(results, cost)}" for cost in COSTS_NS if cost)
    up_to = {way: bearable_ns(results, way) for way in WAYS}
    bears = ", ".join(f"{way} {'any' if most is None else f'{most:,.0f} ns'}" for way, most in up_to.items())
    figure = (f"ESSA an operation at overcommit {ROOMY:g}: {hints}; viable up to a cost of: {bears}; slower than "
              f"without hints by, at a cost of {lines}")
    evens = ", ".join(f"{way} {break_even(results, way, STATED_NS)}" for way in WAYS)
    return Answer(ruled(STATED_NS in deciding, not deciding), figure,
                  f"it decides at {', '.join(f'{cost / 1000:g} us' for cost in deciding) or 'none of these costs'}; "
                  f"with {STATED_NS} ns hints gain from overcommit: {evens}", curves(results), on="the cost of ESSA")


def _percents(results: Results, cost: int) -> str:
    return ", ".join(f"{slower(results, way, ROOMY, cost):.1%} {way}" for way in WAYS)


def curves(results: Results) -> tuple[Mapping[str, Any], ...]:
    """Return the time of an operation over the overcommit, one line a way and cost."""
    lines = [{"name": f"{way}, {cost / 1000:g} us",
              "points": [[k, 1 + slower(results, way, k, cost), None] for k in OVERCOMMITS]}
             for cost in COSTS_NS for way in WAYS]
    return ({"title": "Time with hints / without, by the cost of ESSA", "x": "overcommit", "y": "time, relative",
             "lines": lines},)


def mapper_jobs(_size: Size) -> Mapping[str, Job]:
    arms = {NATIVE: ("cmm2", False), MAPPER: ("swap", True), NEITHER: ("swap", False)}
    return {arm: Trial("mapper", {"scheme": scheme, **AMPLE}, {"pages": MAPPED_PAGES, "mapped": mapped})
            for arm, (scheme, mapped) in arms.items()}


def inferred(results: Results) -> Answer:
    rows = {arm: results[arm].value["rows"] for arm in (NATIVE, MAPPER, NEITHER)}
    same = rows[MAPPER]["tracked"]["total"] == rows[NATIVE]["tracked"]["total"] < rows[NEITHER]["tracked"]["total"]
    stale = rows[MAPPER]["rewritten"]["silently_changed"]
    others = sum(row["silently_changed"] for arm in (NATIVE, NEITHER) for row in rows[arm].values())
    figure = (f"transfers for {MAPPED_PAGES} pages, one path: mapper {rows[MAPPER]['tracked']['total']}, volatile "
              f"{rows[NATIVE]['tracked']['total']}, neither {rows[NEITHER]['tracked']['total']}; pages changed under "
              f"the guest by a second writer: mapper {stale}, others {others}; mlocked pages dropped: mapper "
              f"{rows[MAPPER]['mlocked']['dropped']}, volatile {rows[NATIVE]['mlocked']['dropped']}; pages of a "
              f"network file system swapped: mapper {rows[MAPPER]['network']['host_swap_writes']}, volatile "
              f"{rows[NATIVE]['network']['host_swap_writes']}")
    supported = same and stale > 0 and not others
    return Answer(ruled(supported, not supported), figure, "several paths to one disk were not tried")


CLAIMS = (
    Claim("E22", "Rik van Riel against Martin Schwidefsky, 27 and 29 Mar 2009", "49CD69EB",
          "bits that the guest writes itself are enough: no hypercall is needed",
          "hints on 1, 64 and 256 pages by the shared array and by hypercall, in turn in one run; then a guest writes "
          "random bytes over its array and posts its lock while the host takes frames of it and of a neighbour",
          f"supported if a hint by the array makes no hypercall, one by hypercall takes {CHEAPER:g} times as long or "
          f"more, and nothing is wrong outside the guest that scribbles; else refuted", path_jobs, array_enough),
    Claim("E27", "Martin Schwidefsky, Dave Hansen, Mar 2009", "20090330183405",
          "whether hints are worth it is decided by batching, and by minor faults that cost no ESSA",
          f"one guest, pages touched one at a time, 3 of 10 of a mapped file; ESSA and transfers are counted, time is "
          f"computed: {TOUCH_NS / 1000:g} us a touch, {DISK_NS / 1000:g} us a transfer, an ESSA at each stated cost; "
          f"viable is what is at most {VIABLE:.0%} slower than no hints where nothing is short; batching is not varied",
          f"supported if at {STATED_NS} ns (more than 100 cycles) hints are viable with the optimisation and not "
          f"without; refuted if that is so at no cost", cost_jobs, decides),
    Claim("E28", "Dave Hansen against Jeremy Fitzhardinge and Martin Schwidefsky, Mar 2009", "v7 thread",
          "the host could infer by tracking block I/O which page equals which block; shared storage prevents it",
          "a mapper after VSwapper's, whose tracking is read off the guest's page cache (no tracker knows more); one "
          "path, a second writer of the same disk, mlocked pages, pages of a network file system",
          "supported if with one path the mapper saves the transfers that volatile pages save, and with a second "
          "writer changes pages unnoticed, which nothing else does; else refuted",
          mapper_jobs, inferred),
)
