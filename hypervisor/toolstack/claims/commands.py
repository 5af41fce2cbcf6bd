"""The command `memcommons claims`: arguments in, exit status out.

    0   done; every verdict is a result
    1   a baseline or a trial failed, or a page was wrong
    2   bad usage, or `--resume` of something else
"""

from pathlib import Path
from typing import Annotated

import typer

from hypervisor.toolstack.compare.commands import Faults, Json, Out, Quiet, Resume
from hypervisor.toolstack.interruption import Interruption

commands = typer.Typer()


@commands.command("claims")
def claims(
    names: Annotated[list[str] | None, typer.Argument(metavar="[E1 E2 ...]", help="All claims without.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One seed and a quarter of the work: a first look.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write the verdicts as a page in Markdown, too.")] = None,
    faults: Faults = None, out: Out = None, resume: Resume = False, as_json: Json = False, quiet: Quiet = False,
) -> int:
    """Run the claims of the 2009 threads as experiments, and show what came of each."""
    from hypervisor.toolstack.claims.book import chosen
    from hypervisor.toolstack.claims.claim import FULL, QUICK
    from hypervisor.toolstack.compare.session import Manner

    wanted, size = chosen(names or []), QUICK if quick else FULL
    with Interruption() as interruption:
        from hypervisor.toolstack.claims.claims import run_claims
        from hypervisor.toolstack.means import Means

        return run_claims(wanted, size, faults or "auto", Means(interruption),
                          Manner(out, resume, as_json, quiet), page)
