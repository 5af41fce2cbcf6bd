"""The commands `memcommons compare` and `memcommons density`: arguments in, exit status out.

    0   done; a run that did not finish is a result
    1   a baseline failed, or a page was wrong
    2   bad usage, or `--resume` of something else
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hypervisor.toolstack.interruption import Interruption

commands = typer.Typer()

ScenarioFile = Annotated[Path, typer.Argument(help="A scenario (TOML).")]
Schemes = Annotated[str | None, typer.Option(help="A comma list; all schemes without.")]
Seconds = Annotated[float | None, typer.Option(help="How long each baseline works.")]
Ops = Annotated[int | None, typer.Option(help="Operations of each guest, instead of a time.")]
Faults = Annotated[str | None, typer.Option(help="auto, software or hardware.")]
Disk = Annotated[str | None, typer.Option(help="What disks cost: none, ssd, hdd or network.")]
Out = Annotated[Path | None, typer.Option(help="Folder in which every finished run is kept.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what --out holds.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress display.")]


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


@commands.command("compare")
def compare(
    scenario: ScenarioFile, schemes: Schemes = None,
    overcommit: Annotated[str, typer.Option(help="RAM of all guests / budget: a comma list.")] = "1,1.5,2,3",
    seeds: Annotated[int, typer.Option(help="How many seeds, from the scenario's own on.")] = 5,
    seconds: Seconds = None, ops: Ops = None, faults: Faults = None, disk: Disk = None, out: Out = None,
    resume: Resume = False, as_json: Json = False, quiet: Quiet = False,
) -> int:
    """Do the same work under each scheme, at each overcommit, with several seeds; show means with 95 % intervals."""
    from hypervisor.toolstack.compare.points import overcommits, planned
    from hypervisor.toolstack.compare.points import seeds as numbered
    from hypervisor.toolstack.compare.session import prepared, wanted_schemes

    given = _given(seconds=seconds, operations=ops, faults=faults, disk=disk)
    with Interruption() as interruption:
        from hypervisor.toolstack.compare.compare import run_compare
        from hypervisor.toolstack.compare.session import Manner
        from hypervisor.toolstack.means import Means

        names, factors = wanted_schemes(schemes), overcommits(overcommit)
        session = prepared("compare", scenario, given)
        points = planned(names, factors, numbered(session.scenario.table.seed, seeds))
        return run_compare(session, points, Means(interruption), Manner(out, resume, as_json, quiet))


@commands.command("density")
def density(
    scenario: ScenarioFile,
    slowdown: Annotated[float, typer.Option(help="What each guest may take of its baseline's time.")] = 1.25,
    schemes: Schemes = None,
    most: Annotated[int | None, typer.Option(min=1, help="Guests at most; as many as there is room for "
                                             "without.")] = None,
    budget: Annotated[str | None, typer.Option(help="Budget of the arena, such as 128MiB.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed, instead of the scenario's.")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds; the median decides.")] = 3,
    seconds: Seconds = None, ops: Ops = None, faults: Faults = None, disk: Disk = None, out: Out = None,
    resume: Resume = False, as_json: Json = False, quiet: Quiet = False,
) -> int:
    """Search how many guests fit in the budget under each scheme, while each keeps within the slow-down."""
    from hypervisor.toolstack.compare.session import Manner, prepared, wanted_schemes

    given = _given(budget=budget, seconds=seconds, operations=ops, faults=faults, disk=disk)
    with Interruption() as interruption:
        from hypervisor.toolstack.compare.density import checked_slowdown, run_density
        from hypervisor.toolstack.compare.points import seeds as numbered
        from hypervisor.toolstack.means import Means

        names, limit = wanted_schemes(schemes), checked_slowdown(slowdown)
        session = prepared("density", scenario, given, seed, guests=1)
        return run_density(session, names, numbered(session.scenario.table.seed, seeds), limit, most,
                           Means(interruption), Manner(out, resume, as_json, quiet))
