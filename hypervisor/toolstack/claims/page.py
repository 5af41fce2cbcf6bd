"""A claims run as a page of the documentation: Markdown, with everything that was said and what came of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from hypervisor.toolstack.claims.table import header, sums

INTRODUCTION = """What was claimed on the mailing lists when tmem and CMM2 were proposed, each claim as an experiment on
real memory. Verdicts are computed from the criterion that stands beside each claim; nobody typed them in. A claim that
was not tested says why."""


def page(found: Mapping[str, Any], regenerate: str) -> str:
    """Return the page; `regenerate` is the command that makes it anew."""
    return "\n".join([*_head(found, regenerate), *_table(found), *_details(found)]) + "\n"


def _head(found: Mapping[str, Any], regenerate: str) -> Iterator[str]:
    yield "# The claims of 2009, by experiment"
    yield f"\n{INTRODUCTION}\n"
    machine = found["machine"]
    yield f"- {header(found)}, Python {machine['python']}; {found['took_s'] / 60:.0f} minutes of runs"
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
        yield f"{row['who']} (`{row['mail']}`): {row['says']}.\n"
        yield f"- set-up: {row['setup']}"
        yield f"- criterion: {row['criterion']}"
        yield f"- figure: {row['figure']}"
        yield f"- **{row['verdict']}**" + (f": {row['why']}" if row["why"] else "")
        yield f"- again: `{row['command']}`"


def cell(text: str) -> str:
    """Return a text that stays within a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
