"""All claims in their order."""

from collections.abc import Iterable, Sequence

from hypervisor.toolstack.claims.claim import Claim
from hypervisor.toolstack.claims.thread import SUBJECTS
from shm.errors import UsageProblem


def number(key: str) -> int:
    return int(key.removeprefix("E"))


CLAIMS: dict[str, Claim] = {
    claim.key: claim for claim in sorted((claim for subject in SUBJECTS for claim in subject.CLAIMS),
                                         key=lambda claim: number(claim.key))}


def chosen(names: Sequence[str]) -> list[Claim]:
    """Return the claims of these names ("E10", "e10"), in their order and each once; all without names."""
    wanted = {name.upper() for name in names}
    _refuse(sorted(wanted - CLAIMS.keys()))
    return [claim for key, claim in CLAIMS.items() if not wanted or key in wanted]


def _refuse(unknown: Iterable[str]) -> None:
    for name in unknown:
        raise UsageProblem(f"{name!r} is not a claim; allowed: {next(iter(CLAIMS))} to {list(CLAIMS)[-1]}")
