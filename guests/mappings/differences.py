"""Both sides of each rule, and where they part: by the shortest steps that still show it.

Rule 1: each side performs the steps with a guest of its own, one after the other: nothing is left between two runs.
Rule 2: a difference is shown by steps from which no single one can be left out, and whose numbers cannot be made
        smaller by one.  They were performed, not thought up.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from guests.mappings.mark_bed import MarkBed, NativeBed, OnTmemBed
from guests.mappings.mark_rules import MARK_RULES
from guests.mappings.operator import Operator
from guests.mappings.pool_bed import PoolBed, TmemBed, VolatileBed
from guests.mappings.rules import POOL_RULES
from guests.mappings.steps import Rule, answer_to

Steps = tuple[str, ...]
MakeBed = Callable[[Operator, Rule], PoolBed | MarkBed]


@dataclass(frozen=True)
class Side:
    """Who answers: its name in tables, and what makes it."""

    name: str
    make: MakeBed


@dataclass(frozen=True)
class TwoSides:
    """Two sides that shall answer alike; the first is the original, the second the imitation."""

    name: str
    original: Side
    imitation: Side
    groups: Mapping[str, tuple[Rule, ...]]


POOLS = TwoSides("tmem's ephemeral pool on volatile pages",
                 Side("tmem", lambda op, rule: TmemBed(op, rule.region, rule.bounded)),
                 Side("volatile pages", lambda op, rule: VolatileBed(op, rule.region)), POOL_RULES)
MARKS = TwoSides("CMM2's marks on tmem's put and get", Side("CMM2", lambda op, _: NativeBed(op)),
                Side("on tmem", lambda op, _: OnTmemBed(op)), MARK_RULES)
MAPPINGS = (POOLS, MARKS)


@dataclass(frozen=True)
class Row:
    """What came of one rule.  The answers are to `steps`: the rule's own, or of a difference the shortest."""

    rule: Rule
    steps: Steps
    original: Steps
    imitation: Steps
    broken: tuple[Steps, Steps]          # by the original, by the imitation: steps not answered as the rule demands

    @property
    def same(self) -> bool:
        return self.original == self.imitation


def differences(cluster: str, mapping: TwoSides) -> Iterator[Row]:
    """Try each rule of a mapping on a cluster that nobody else uses.

    UsageProblem where it cannot be done there, NotTaken where the host has no room on its swap disk, or no more.
    """
    with Operator(cluster) as operator:
        operator.check()
        _check_swap(operator)
        for rule in (rule for rules in mapping.groups.values() for rule in rules):
            yield row(operator, mapping, rule)


def _check_swap(operator: Operator) -> None:
    """NotTaken where a stable page cannot be taken: no rule about the swap disk could be tried."""
    with NativeBed(operator) as bed:
        for step in ("write p D1", "take"):
            bed.perform(step)


def row(operator: Operator, mapping: TwoSides, rule: Rule) -> Row:
    """Try one rule on both sides."""
    def both(steps: Steps) -> tuple[Steps, Steps]:
        return (answers(operator, mapping.original, rule, steps), answers(operator, mapping.imitation, rule, steps))

    found = both(rule.steps)
    broken = tuple(rule.broken(found[0])), tuple(rule.broken(found[1]))
    if found[0] == found[1]:
        return Row(rule, rule.steps, *found, broken)
    steps = shortest(rule.steps, lambda steps: parting(steps, *both(steps)))
    return Row(rule, steps, *both(steps), broken)


def parting(steps: Steps, original: Steps, imitation: Steps) -> Steps:
    """Return the first step that is answered differently, and both answers; () where none is."""
    return next((texts for texts in zip(steps, original, imitation, strict=True) if texts[1] != texts[2]), ())


def answers(operator: Operator, side: Side, rule: Rule, steps: Steps) -> Steps:
    """Perform steps on one side, from the beginning, and return its answers."""
    with side.make(operator, rule) as bed:
        return tuple(answer_to(bed, step) for step in steps)


def shortest(steps: Steps, parts: Callable[[Steps], Steps]) -> Steps:
    """Return the shortest steps that part as these do.

    Without a step they must part at the same one with the same answers, and with a smaller number with answers that are
    the same but for their numbers: else another difference could come in the place of this one.
    """
    steps = _without(steps, parts)
    for number in sorted({word for step in steps for word in step.split()[1:] if word.isdigit()}, key=int):
        steps = _with_less(steps, number, parts)
    return _without(steps, parts)


def _without(steps: Steps, parts: Callable[[Steps], Steps]) -> Steps:
    """Leave out one step after the other, as long as they part in the same way."""
    known = parts(steps)
    for shorter in (steps[:at] + steps[at + 1:] for at in range(len(steps))):
        if parts(shorter) == known:
            return _without(shorter, parts)
    return steps


def _with_less(steps: Steps, number: str, parts: Callable[[Steps], Steps]) -> Steps:
    """Make one number as small as the difference allows, in all steps that have it: by halves, then the last by one."""
    known, low, high = _words(parts(steps)), 0, int(number)          # it does not part at low, and does at high
    while high - low > 1:
        middle = (low + high) // 2
        if _words(parts(_with(steps, number, middle))) == known:
            high = middle
        else:
            low = middle
    return _with(steps, number, high)


def _with(steps: Steps, number: str, less: int) -> Steps:
    """Return steps with another number in the place of one."""
    return tuple(" ".join(str(less) if word == number else word for word in step.split()) for step in steps)


def _words(texts: Steps) -> Steps:
    """Return texts with N for every number but 0."""
    return tuple(re.sub(r"[1-9]\d*", "N", text) for text in texts)
