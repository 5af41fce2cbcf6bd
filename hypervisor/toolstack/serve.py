"""`memcommons serve`: one hypervisor in the foreground, until `ctl stop` or a signal ends it.

The hypervisor is a child that ends with us: should we be killed, its standard input closes and it stops in order.
"""

import sys
import time
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from hypervisor.schemes import SCHEMES
from hypervisor.toolstack.crew import Crew, PhaseBroken
from hypervisor.toolstack.interruption import Interruption
from hypervisor.toolstack.journal import Journal
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.plan import CONTROL_BYTES_A_GUEST, PhasePlan
from hypervisor.toolstack.preflight import refuse_full_disk, refuse_small_shm, room_in
from hypervisor.toolstack.scenario import HypervisorTable, TmemTable, check_budget, known_scheme
from shm.arena import free_bytes
from shm.errors import UsageProblem
from shm.names import checked_cluster
from shm.units import format_size, parse_size

OK, FAILED = 0, 1
SERVE = "serve"
SLICE_SECONDS = 60.0


class GuestNews(Journal):
    """Says on standard error what the hypervisor says of its guests."""

    def event(self, phase: str, event: str, **facts: Any) -> None:
        said = facts.get("said", {}) if (phase, event) == (SERVE, "said") else {}
        match said.get("event"):
            case "guest-died":
                print(f"guest {said.get('name')!r} (pid {said.get('pid')}) died", file=sys.stderr)
            case "guest-ended":
                print(f"guest {said.get('name')!r} was ended: {said.get('why')}", file=sys.stderr)


def serve_order(name: str, budget: str, scheme: str, swap: str | None, reclaim: str, form: str = "raw",
                quirks: str = "none", write_back: bool = False, dedup_across: bool = False,
                cmma: str = "architected") -> dict[str, Any]:
    """Return the hypervisor's order, checked; UsageProblem names the option."""
    size = option_size("--budget", budget)
    check_budget(size, 0, "--budget")
    check_choice("--reclaim", reclaim, "a policy", HypervisorTable.model_fields["reclaim"])
    check_choice("--cmma", cmma, "a kind of CMMA", HypervisorTable.model_fields["cmma"])
    check_choice("--form", form, "a form", TmemTable.model_fields["form"])
    check_choice("--quirks", quirks, "a set of quirks", TmemTable.model_fields["quirks"])
    try:
        known_scheme(scheme)
    except ValueError as error:
        raise UsageProblem(f"--scheme: {error}") from None
    swap_bytes = 2 * size if swap is None else option_size("--swap", swap)
    return {"cluster": checked_cluster(name), "budget": size, "scheme": scheme, "reclaim": reclaim, "swap": swap_bytes,
            "ephemeral_pages": 0, "quirks": quirks, "form": form, "write_back": write_back,
            "dedup_across": dedup_across, "cmma": cmma, "folder": HypervisorTable().folder}


def check_choice(option: str, text: str, what: str, field: FieldInfo) -> None:
    """Refuse a word that the scenario's key of the same meaning does not allow."""
    allowed = get_args(field.annotation)
    if text not in allowed:
        raise UsageProblem(f"{option}: {text!r} is not {what}; allowed: {', '.join(allowed)}")


def option_size(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageProblem(f"{option}: {error}") from None


def serve(order: dict[str, Any], interruption: Interruption, means: Means | None = None) -> int:
    """Run the hypervisor until it ends; return the exit status.  Interrupted is raised when all is stopped."""
    means = means or Means(interruption, journal=GuestNews())
    check_room(order)
    crew = Crew(PhasePlan(SERVE, order["cluster"], order["budget"], order, (), Path.cwd()), means)
    broken: PhaseBroken | None = None
    try:
        crew.start_hypervisor()
        print(invitation(order, crew.hypervisor.pid), flush=True)
        while True:
            crew.wait(lambda: False, time.monotonic() + SLICE_SECONDS)
    except PhaseBroken as error:
        broken = error
    finally:
        crew.end()
    problems = crew.problems if crew.account else [str(broken), *crew.problems]
    for line in problems:
        print(line, file=sys.stderr)
    return FAILED if problems else OK


def check_room(order: dict[str, Any]) -> None:
    refuse_small_shm(order["budget"] + CONTROL_BYTES_A_GUEST, free_bytes(), "--budget: the cluster",
                     "or serve a smaller budget")
    if SCHEMES[order["scheme"]].swap:
        folder = Path(order["folder"])
        refuse_full_disk(folder, order["swap"], room_in(folder), "--swap: the hypervisor's swap")


def invitation(order: dict[str, Any], pid: int) -> str:
    """Return the line that says that it serves, and how a guest joins."""
    name = order["cluster"]
    return (f"cluster {name!r} serves {format_size(order['budget'])} under {order['scheme']} (pid {pid}); a guest "
            f"joins with Guest.connect({name!r}, name='mine', ram='64MiB'); stop it with `memcommons ctl {name} stop`")
