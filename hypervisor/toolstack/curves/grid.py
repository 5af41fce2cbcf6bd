"""Which runs the curves are made of, decided before anything is started: data and pure functions.

    oltp    two guests with SQLite transactions: file pages, some of them dirty
    scan    two guests that read a tree of files again and again: clean file pages

A picture is one workload on one disk; a spot is one run of a picture.
Work is given in operations, so that every scheme does the same; the budget follows from the overcommit.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.points import Point, planned, scenario_at
from hypervisor.toolstack.reading import built, listed
from hypervisor.toolstack.scenario import Scenario
from shm.diskcost import MODELS
from shm.errors import UsageProblem

RAM = "16MiB"
# `operations` of each guest: some seconds of two guests alone on two cores.  `budget` is replaced at each overcommit.
WORKLOADS: dict[str, dict[str, Any]] = {
    "oltp": {"name": "oltp", "budget": "32MiB", "operations": 8000, "guest": [
        {"name": "bank", "count": 2, "ram": RAM, "workload": "sqlite", "options": {"database": "14MiB"}}]},
    "scan": {"name": "scan", "budget": "32MiB", "operations": 6000, "guest": [
        {"name": "scan", "count": 2, "ram": RAM, "workload": "scan", "options": {"size": "14MiB"}}]},
}
DISKS = "ssd,hdd"
SCHEMES = "swap,balloon,light,tmem,cmm2,cmm2+tmem"
OVERCOMMIT = "0.75,1,1.5,2,3"
SEEDS = 3
FIRST_SEED = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """One workload on one disk."""

    workload: str
    disk: str

    @property
    def key(self) -> str:
        """Its name among the files."""
        return f"{self.workload}-{self.disk}"

    @property
    def said(self) -> str:
        """Its name for people."""
        return f"{self.workload}, disk {self.disk}"


@dataclass(frozen=True, slots=True)
class Spot:
    """One run of a picture: what `series` runs and keeps."""

    picture: Picture
    point: Point

    @property
    def scheme(self) -> str:
        return self.point.scheme

    @property
    def key(self) -> str:
        return f"{self.picture.key}-{self.point.key}"

    @property
    def said(self) -> str:
        return f"{self.picture.said}, {self.point.said}"

    @property
    def baseline(self) -> "Spot":
        return Spot(self.picture, self.point.baseline)


def chosen(text: str, allowed: Sequence[str], option: str, what: str) -> list[str]:
    """Return the names of a comma list, each once; UsageProblem for one that is not allowed."""
    names = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in names:
        if name not in allowed:
            raise UsageProblem(f"{option}: {name!r} is not a {what}; allowed: {', '.join(allowed)}")
    return names


def pictures(workloads: str, disks: str) -> list[Picture]:
    """Return the pictures of two comma lists."""
    names = chosen(workloads, list(WORKLOADS), "--workloads", "workload of the curves")
    models = chosen(disks, [name for name, model in MODELS.items() if not model.free], "--disks", "disk with a cost")
    return [Picture(workload, disk) for workload in names for disk in models]


def schemes(text: str) -> list[str]:
    return listed(text, "--schemes")


def spots(wanted: Sequence[Picture], names: Sequence[str], factors: Sequence[float],
          seeds: Sequence[int]) -> list[Spot]:
    """Return the measured runs in the order of running; a baseline is run before the first that needs it.

    All of a seed before the next seed, and a picture after the other: so each is whole early, with few seeds, and
    schemes at one overcommit stand beside each other in time.  Each seed begins with another point, as in `compare`.
    """
    points = [point for point in planned(names, factors, seeds) if point.scheme != BASELINE]
    return [Spot(picture, point) for seed in seeds for picture in wanted for point in points if point.seed == seed]


def scenario_of(picture: Picture, options: Mapping[str, Any]) -> Scenario:
    """Return the checked scenario of a picture; `options` stand in for its keys."""
    return built(WORKLOADS[picture.workload], f"curves ({picture.workload})", Path("/"),
                 {**options, "disk": picture.disk, "seed": FIRST_SEED})


def scenario_for(scenario: Scenario, spot: Spot) -> Scenario:
    """Return a picture's scenario as one of its spots has it."""
    return scenario_at(scenario, spot.point)


def text() -> bytes:
    """Return what the identity of the curves has of their scenarios: all workloads, so that they may be widened."""
    return json.dumps(WORKLOADS, sort_keys=True).encode()
