"""The commands `memcommons ctl CLUSTER states`, `discard`, `reset-states`: arguments in, exit status out."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

states = typer.Typer()

Guest = Annotated[str, typer.Argument(help="The guest's name.")]


def _run(context: typer.Context, command: Callable[..., int], *arguments: Any) -> int:
    from hypervisor.toolstack.connection import call

    return command(lambda question: call(context.obj, question), *arguments)


@states.command("states")
def ctl_states(context: typer.Context, guest: Guest,
               as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False) -> int:
    """Show how many pages of a guest are in which state."""
    from hypervisor.toolstack.states import show_states

    return _run(context, show_states, guest, as_json)


@states.command("discard")
def ctl_discard(context: typer.Context, guest: Guest,
                first: Annotated[int, typer.Argument(min=0, help="Number of the first page.")],
                count: Annotated[int, typer.Argument(min=1, help="How many pages.")] = 1) -> int:
    """Take frames of a guest now, as the pages' states allow: volatile pages are discarded, stable ones swapped."""
    from hypervisor.toolstack.states import discard

    return _run(context, discard, guest, first, count)


@states.command("reset-states")
def ctl_reset_states(context: typer.Context, guest: Guest) -> int:
    """Make all pages of a guest stable, as a reset of its processor does."""
    from hypervisor.toolstack.states import reset_states

    return _run(context, reset_states, guest)
