"""Each scheme on top of the other (E1, E2): which rules both sides keep alike, and where they part.

Needs scheme cmm2+tmem, a swap disk, and no other guest.
"""

from collections.abc import Mapping
from typing import Any

from guests.mappings.differences import MAPPINGS, Row, TwoSides, differences


def run(cluster: str, _options: Mapping[str, Any]) -> dict[str, Any]:
    """Return, a mapping each: groups of rules with what is alike and what differs, each with its shortest steps."""
    return {name: mapping_figures(mapping, list(differences(cluster, mapping)))
            for name, mapping in zip(("pool", "marks"), MAPPINGS, strict=True)}


def mapping_figures(mapping: TwoSides, rows: list[Row]) -> dict[str, Any]:
    return {"groups": {group: [_rule(row) for row in rows if row.rule in rules]
                       for group, rules in mapping.groups.items()}}


def _rule(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"number": row.rule.number, "text": row.rule.text, "same": row.same}
    if not row.same:
        found |= {"steps": list(row.steps), "original": list(row.original), "imitation": list(row.imitation)}
    return found
