"""Is tmem a subset of CMM2?  E1 and E2, by each scheme built on top of the other, and by how much a guest can cache."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Curves, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial

MIB = 1 << 20
LIMIT_S = 400.0
MAPPINGS = Trial("mappings", {"scheme": "cmm2+tmem", "budget": 32 << 20, "swap": 16 << 20})
SEEN, COSTS = "what a guest sees of a pool", "capacity, accounts and costs"
SETS = (1, 2, 8, 32)                     # of the guest's RAM
ACCOUNTS = ("E2a", "E2b", "E2c", "E2d")  # larger than the guest, its memory, its max_mem, written to by a stray store


def jobs(_size: Size) -> Mapping[str, Job]:
    return {"mappings": MAPPINGS}


def alike(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    return [rule["number"] for rule in rules if rule["same"]]


def differing(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    return [rule["number"] for rule in rules if not rule["same"]]


def subset(results: Results) -> Answer:
    groups = results["mappings"].value["pool"]["groups"]
    seen, all_rules = groups[SEEN], [rule for rules in groups.values() for rule in rules]
    parted = differing(all_rules)
    figure = (f"{len(alike(all_rules))} of {len(all_rules)} rules of a private ephemeral pool are kept; of those about "
              f"the answers to put, get and flush while the operator does nothing, {len(alike(seen))} of {len(seen)}")
    return Answer(ruled(not parted, bool(differing(seen))), figure,
                  f"not kept: {', '.join(parted)} (docs/mappings.md): what the operator orders, and who is charged"
                  if parted else "", on="whether the operator's orders and the accounts are a part of tmem")


def capacity_jobs(_size: Size) -> Mapping[str, Job]:
    def sized(scheme: str) -> Trial:
        return Trial("capacity", {"scheme": scheme, "budget": 66 * MIB}, {"pages": 256, "sets": list(SETS)}, LIMIT_S)
    return {"mappings": MAPPINGS, "cmm2": sized("cmm2"), "tmem": sized("tmem")}


def capacity(results: Results) -> Answer:
    found = {scheme: results[scheme].value for scheme in ("cmm2", "tmem")}
    ram = found["tmem"]["guest_pages"]
    most = {scheme: max(each["cached"] for each in value["sets"]) for scheme, value in found.items()}
    parted = set(differing(results["mappings"].value["pool"]["groups"][COSTS])) & set(ACCOUNTS)
    wrong = sum(each["wrong"] for value in found.values() for each in value["sets"])
    larger = most["tmem"] > ram >= most["cmm2"] and "E2a" in parted and not wrong
    hits = "; ".join(f"{scheme} {', '.join(f'{100 * share:.0f}' for _, share in rates(value))} %"
                     for scheme, value in found.items())
    return Answer(
        ruled(larger, most["tmem"] <= ram or most["cmm2"] > ram),
        f"most pages cached by a guest of {ram:,}: cmm2 {most['cmm2']:,}, tmem {most['tmem']:,}; hits on files of "
        f"{', '.join(map(str, SETS))} times its RAM: {hits}; one reading of each, 1 run",
        f"accounts that part when each is built on the other (docs/mappings.md): {', '.join(sorted(parted))}",
        curves(found), on="the accounts: rule E2a is kept by both, or a page was wrong")


def rates(value: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Return (set as a multiple of RAM, share of reads that needed no disk)."""
    return [(each["multiple"], each["hits"] / each["pages"]) for each in value["sets"]]


def curves(found: Mapping[str, Any]) -> Curves:
    lines = [{"name": scheme, "points": [[multiple, 100 * share, None] for multiple, share in rates(value)]}
             for scheme, value in found.items()]
    return ({"title": "E2: reads that needed no disk", "x": "file set / RAM of the guest", "y": "%", "lines": lines},)


CLAIMS = (
    Claim("E1", "Anthony Liguori, 8 and 10 Jul 2009", "4A55243B, 4A566414, 4A567E3B",
          "ephemeral tmem is a subset of CMM2: volatile pages, a flag in get and put, a handler of discards",
          "the calls of a private ephemeral pool, on volatile pages of the guest's own; both pools do the same steps, "
          "rule by rule: the rules of such a pool, those of shared and persistent ones left out",
          "supported if every rule is kept; refuted if one is not that is about the answers to put, get and flush "
          "while the operator does nothing",
          jobs, subset),
    Claim("E2", "Dan Magenheimer, Jul 2009", "ac5dec0d, d693761e",
          "tmem is no subset of CMM2: a volatile page is memory of the guest's, a pool may be larger than the guest",
          "a guest of 1 MiB and a host of 66 (his were 1 and 64 GiB) read files of 1, 2, 8 and 32 MiB, each page once "
          "in two orders; and the rules by which both were built on each other",
          "supported if under tmem a guest caches more pages than it has, under cmm2 it does not, and rule E2a (a pool "
          "larger than the guest) is kept by tmem alone; "
          "refuted if tmem caches no more than the guest has, or cmm2 more",
          capacity_jobs, capacity),
)
