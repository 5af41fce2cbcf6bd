"""How many guests fit, as people and as programs read it: made of what the searches found, and of nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from hypervisor.toolstack.compare.fitting import Found, Tried
from hypervisor.toolstack.compare.session import Session
from hypervisor.toolstack.compare.statistics import doubt, doubtful
from hypervisor.toolstack.compare.table import disk_words
from hypervisor.toolstack.table import DASH, plain_table, ratio
from shm.units import format_size

VERSION = 1


def density_document(session: Session, found: Sequence[Found], seeds: Sequence[int], slowdown: float,
                     limit: tuple[int, str], problems: Sequence[str]) -> dict[str, Any]:
    """Return the searches as JSON has them; keys may be added, none removed.  `limit`: of guests, and why."""
    table = session.scenario.table
    return {
        "version": VERSION, "name": session.scenario.name, "slowdown": slowdown, "budget_bytes": table.budget,
        "seeds": list(seeds), "seconds": table.seconds, "operations": table.operations, "limit": limit[0],
        "limit_why": limit[1], "disk": table.disk.model_dump(mode="json"), **session.identity,
        "schemes": [_scheme(one) for one in found], "problems": list(problems)}


def _scheme(found: Found) -> dict[str, Any]:
    return {"scheme": found.scheme, "most": found.answer.most, "at_the_limit": found.answer.first_not is None,
            "at": _tried(found.at), "next": _tried(found.next), "contrary": list(found.answer.contrary),
            "tried": [_tried(found.tried[count]) for count in sorted(found.tried)]}


def _tried(one: Tried | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"guests": one.guests, "fits": one.fits, "worst_slowdown": one.worst, "worst_guest": one.worst_guest,
            "failed": one.failed, "unfinished_seeds": one.unfinished, "promised": one.promised}


def density_table(document: Mapping[str, Any]) -> RenderableType:
    """Return the table, and a line for everything that it cannot say."""
    head = Text(f"{document['name']}: the most guests within a slow-down of {document['slowdown']:g}, budget "
                f"{format_size(document['budget_bytes'])}; median of {len(document['seeds'])} seed"
                f"{'s' * (len(document['seeds']) != 1)}; {document['faults']} faults; "
                f"{disk_words(document['disk'])}", style="bold")
    table = plain_table("scheme", "most guests", "worst slow-down", "guest", "at the next", "promised / budget",
                        title="")
    for row in document["schemes"]:
        at = row["at"] or {}
        table.add_row(row["scheme"], str(row["most"]) + ("+" if row["at_the_limit"] else ""),
                      ratio(at.get("worst_slowdown")), at.get("worst_guest") or DASH, _next(row["next"]),
                      ratio(at.get("promised")))
    return Group(head, table, *(Text(line) for row in document["schemes"] for line in _lines(row, document)))


def _next(following: Mapping[str, Any] | None) -> str:
    if following is None:
        return "not tried"
    if following["worst_slowdown"] is None:
        return f"{following['guests']}: did not finish"
    return f"{following['guests']}: {following['worst_slowdown']:.2f}"


def _lines(row: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    said = []
    if row["at_the_limit"]:
        said.append(f"{row['scheme']}: perhaps more than {row['most']}: not tried, {document['limit_why']}")
    if row["next"] and row["next"]["failed"]:
        said.append(f"{row['scheme']}: {row['next']['guests']} guests did not finish: {row['next']['failed']}")
    if row["at"] and doubtful(row["at"]["worst_slowdown"]):
        said.append(f"{row['scheme']}: {row['most']} guests: {doubt(row['at']['worst_slowdown'])}")
    if row["contrary"]:
        counts = ", ".join(map(str, row["contrary"]))
        said.append(f"{row['scheme']}: not monotone: {row['next']['guests']} guests do not fit, but {counts} do; the "
                    f"lower number is told")
    return said
