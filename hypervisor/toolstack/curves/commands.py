"""The command `memcommons curves`: arguments in, exit status out.

    0   done, or this part is over; a run that did not finish is a result
    1   a baseline failed, or a page was wrong
    2   bad usage, or `--resume` of something else
"""

from pathlib import Path
from typing import Annotated

import typer

from hypervisor.toolstack.compare.commands import Faults, Json, Ops, Quiet, Resume, Seconds
from hypervisor.toolstack.curves import grid
from hypervisor.toolstack.interruption import Interruption

commands = typer.Typer()


@commands.command("curves")
def curves(
    out: Annotated[Path, typer.Option(help="Folder in which every finished run is kept.")],
    workloads: Annotated[str, typer.Option(help="A comma list.")] = ",".join(grid.WORKLOADS),
    disks: Annotated[str, typer.Option(help="A comma list; in virtual time.")] = grid.DISKS,
    schemes: Annotated[str, typer.Option(help="A comma list.")] = grid.SCHEMES,
    overcommit: Annotated[str, typer.Option(help="RAM of all guests / budget: a comma list.")] = grid.OVERCOMMIT,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = grid.SEEDS,
    minutes: Annotated[float, typer.Option(help="How long this part may take.")] = 60.0,
    seconds: Seconds = None, ops: Ops = None, faults: Faults = None, resume: Resume = False, as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Draw throughput against overcommit for OLTP and scan, and find where schemes pass each other; in parts."""
    from hypervisor.toolstack.compare.points import overcommits
    from hypervisor.toolstack.compare.points import seeds as numbered
    from hypervisor.toolstack.compare.session import Manner
    from hypervisor.toolstack.curves.part import Part, checked_minutes

    part = Part(checked_minutes(minutes))
    options = {"seconds": seconds, "operations": ops, "faults": faults}
    given = {key: value for key, value in options.items() if value is not None}
    with Interruption() as interruption:
        from hypervisor.toolstack.curves.curves import Grid, run_curves
        from hypervisor.toolstack.means import Means

        wanted = Grid(grid.pictures(workloads, disks), grid.schemes(schemes), overcommits(overcommit),
                      numbered(grid.FIRST_SEED, seeds))
        return run_curves(wanted, given, part, Means(interruption), Manner(out, resume, as_json, quiet))
