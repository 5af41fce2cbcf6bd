"""Is tmem a subset of CMM2?  E1 and E2, by each scheme built on top of the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial

MAPPINGS = Trial("mappings", {"scheme": "cmm2+tmem", "budget": 32 << 20, "swap": 16 << 20})
SEEN, HAS, COSTS = "what a guest sees of a pool", "what the operator has of it", "capacity, accounts and costs"


def jobs(_size: Size) -> Mapping[str, Job]:
    return {"mappings": MAPPINGS}


def alike(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    return [rule["number"] for rule in rules if rule["same"]]


def differing(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    return [rule["number"] for rule in rules if not rule["same"]]


def subset(results: Results) -> Answer:
    groups = results["mappings"].value["pool"]["groups"]
    seen, all_rules = groups[SEEN], [rule for rules in groups.values() for rule in rules]
    figure = (f"{len(alike(seen))} of {len(seen)} rules that a guest can see are kept, "
              f"{len(alike(all_rules))} of all {len(all_rules)}")
    parted = differing(all_rules)
    return Answer(ruled(not differing(seen), bool(differing(seen))), figure,
                  f"for what a guest sees; not kept: {', '.join(parted)}, which are of the operator's and of accounts"
                  if parted else "")


CLAIMS = (
    Claim("E1", "Anthony Liguori, 8 and 10 Jul 2009", "4A55243B, 4A566414, 4A567E3B",
          "ephemeral tmem is a subset of CMM2: volatile pages, a flag in get and put, a handler of discards",
          "the face of an ephemeral pool on volatile pages of the guest; both pools do the same steps, rule by rule",
          "supported if every rule of tmem that a guest can see is answered alike, refuted if one is not",
          jobs, subset),
)
