"""How to repeat it: the command, the scenario, the machine; and what a repetition can be expected to show."""

from collections.abc import Mapping
from typing import Any

from hypervisor.toolstack.reporting.markup import Child, tag
from hypervisor.toolstack.reporting.page import Section, definitions, folded, paragraph, preformatted
from hypervisor.toolstack.reporting.told import Machine, Origin
from hypervisor.toolstack.reporting.words import TERMS, WHAT, schemes_told

HEADING = "How to repeat it"
FREE_COUNT = ("The length was given in seconds: the baseline worked so long and thereby fixed the number of "
              "operations, which is another one each time. --ops N in its place fixes it from the start.")
FIXED_COUNT = "The number of operations is fixed: a repetition does exactly the same work."


def repeat(origin: Origin | None, machine: Mapping[str, Any] | Machine, seconds: bool | None,
           also: tuple[Child, ...] = ()) -> Section:
    """Return the section; `seconds`: the length was given as a time (None: that is not known)."""
    told = machine.model_dump() if isinstance(machine, Machine) else dict(machine)
    where = ", ".join(f"{name} {value}" for name, value in told.items())
    body: list[Child] = []
    if origin:
        body += [preformatted(origin.command),
                 paragraph("The scenario was ", tag("code", origin.scenario), ". To repeat this elsewhere, save its "
                           "text as a file and name that one. Files that it names (traces) are looked for beside it."),
                 folded("The scenario's text", preformatted(origin.text))]
    else:
        body.append(paragraph("The command and the scenario were not kept: this was written by an older version."))
    if seconds is not None:
        body.append(paragraph(FREE_COUNT if seconds else FIXED_COUNT))
    body.append(paragraph("Counts of pages follow from the seed and from chance in the order of things; times follow "
                          "from the machine and from what else it does. This one: ", where, ".", class_="muted"))
    return Section(HEADING, (*body, *also))


def explained(schemes: list[str]) -> Section:
    """Return the section for who never heard of it."""
    return Section("What this is about", (
        paragraph(WHAT), folded("The schemes on this page", definitions(schemes_told(schemes))),
        folded("The words", definitions(TERMS))))
