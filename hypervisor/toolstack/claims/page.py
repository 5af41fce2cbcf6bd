"""A claims run as a page of the documentation: Markdown, with everything that was said and what came of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from hypervisor.toolstack.claims.table import header, sums

INTRODUCTION = """What was claimed on the mailing lists when tmem and CMM2 were proposed, each claim as an experiment
on real memory. Verdicts are computed from the criterion that stands beside each claim; nobody typed them in. A claim
that was not tested says why. Beside each claim stands what was run for it: some trials go by clocks of a model, and
what these leave out ([measuring](measuring.md#trials-of-tenants)) their verdicts leave out, too.

Words: *tmem* is a pool of the host's into which guests put copies of pages; *precache* or *cleancache* (ephemeral:
the host may forget) and *preswap* or *frontswap* (persistent: it must not) are its two uses. Under *CMM2* guests mark
pages *stable* (S), *volatile* (V), *potentially volatile* (P: volatile until stored to) or *unused* (U); ESSA is the
instruction that does so; the host *discards* volatile pages, and who touches one takes a *discard fault* (a trap). A
*balloon* takes pages from a guest, which must find them by itself; CMM1 and VMRM are IBM's. *Overcommit* is the
memory of all guests / the budget. PFAULT lets the task alone wait for a page that the host reads, and not the whole
guest. F and H are the guest's disk and the host's. Rules T and E2a to E2n are in [mappings](mappings.md); schemes and
reclaim orders in [policies](policies.md). *The common guests*: two with SQLite, one that scans files, one with numpy
tables, 16 MiB each.

`+-`, and what stands in brackets behind a mean, is the 95 % interval over the seeds; sums are over all of them.
Message ids are shortened to their unique part."""


def page(found: Mapping[str, Any], regenerate: str) -> str:
    """Return the page; `regenerate` is the command that makes it anew."""
    return "\n".join([*_head(found, regenerate), *_table(found), *_details(found)]) + "\n"


def _head(found: Mapping[str, Any], regenerate: str) -> Iterator[str]:
    yield "# The claims of 2009, by experiment"
    yield f"\n{INTRODUCTION}\n"
    machine = found["machine"]
    yield (f"- {header(found)}, Python {machine['python']}; {len(found['jobs'])} runs and trials, "
           f"{found['took_s'] / 60:.0f} minutes; code {found['code'][:12]}")
    yield f"- {sums(found)}"
    yield f"- made anew by `{regenerate}`"
    yield from (f"- problem: {line}" for line in found["problems"])


def _table(found: Mapping[str, Any]) -> Iterator[str]:
    yield "\n| | claim | figure | verdict |"
    yield "|---|---|---|---|"
    for row in found["claims"]:
        yield (f"| [{row['key']}](#{row['key'].lower()}) | {cell(row['says'])} | {cell(row['figure'])} | "
               f"{row['verdict']} |")


def _details(found: Mapping[str, Any]) -> Iterator[str]:
    for row in found["claims"]:
        yield f"\n## {row['key']}\n"
        mail = "no message id known" if row["mail"] == "-" else f"`{row['mail']}`"
        yield f"{row['who']} ({mail}): {row['says']}.\n"
        yield f"- set-up: {row['setup']}"
        yield f"- run: {row['work']}"
        yield f"- criterion: {row['criterion']}"
        yield f"- figure: {row['figure']}"
        yield f"- **{row['verdict']}**" + (f": {row['why']}" if row["why"] else "")
        yield f"- again: `{row['command']}`"


def cell(text: str) -> str:
    """Return a text that stays within a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
