"""The commands `memcommons ctl CLUSTER tmem-*`: arguments in, exit status out.  What they do is `tmem_control`'s."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from shm.errors import UsageProblem

tmem = typer.Typer()

Guest = Annotated[str | None, typer.Argument(help="The guest's name.")]
All = Annotated[bool, typer.Option("--all", help="All guests.")]


def _named(guest: str | None, everybody: bool, command: str) -> str | None:
    """Return the guest meant, None for all: one of the two must be given."""
    if everybody == (guest is not None):
        raise UsageProblem(f"{command}: name a guest, or give --all")
    return guest


def _run(context: typer.Context, command: Callable[..., int], *arguments: Any, **more: Any) -> int:
    from hypervisor.toolstack.tmem_control import Tmem

    return command(Tmem(context.obj), *arguments, **more)


@tmem.command("tmem-list")
def tmem_list(context: typer.Context,
              is_long: Annotated[bool, typer.Option("-l", "--long", help="Pools too; Xen's long form.")] = False,
              as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
              as_xen: Annotated[bool, typer.Option("--xen", help="Xen's lines.")] = False) -> int:
    """Show what tmem holds, and for whom."""
    from hypervisor.toolstack.tmem_control import show_list

    return _run(context, show_list, is_long, as_json, as_xen)


@tmem.command("tmem-freeze")
def tmem_freeze(context: typer.Context, guest: Guest = None, everybody: All = False) -> int:
    """Let a guest store nothing new; what it has stays."""
    from hypervisor.toolstack.tmem_control import freeze

    return _run(context, freeze, _named(guest, everybody, "tmem-freeze"))


@tmem.command("tmem-thaw")
def tmem_thaw(context: typer.Context, guest: Guest = None, everybody: All = False) -> int:
    """Undo tmem-freeze."""
    from hypervisor.toolstack.tmem_control import thaw

    return _run(context, thaw, _named(guest, everybody, "tmem-thaw"))


@tmem.command("tmem-flush")
def tmem_flush(context: typer.Context, size: Annotated[str, typer.Argument(help="Such as 16MiB.")]) -> int:
    """Evict the oldest ephemeral pages until so much has gone back to the machine."""
    from hypervisor.toolstack.tmem_control import flush

    return _run(context, flush, size)


@tmem.command("tmem-destroy")
def tmem_destroy(context: typer.Context, guest: Guest = None, everybody: All = False) -> int:
    """Drop all pools of a guest, persistent pages too."""
    from hypervisor.toolstack.tmem_control import destroy

    return _run(context, destroy, _named(guest, everybody, "tmem-destroy"))


@tmem.command("tmem-set")
def tmem_set(context: typer.Context, guest: Guest = None, everybody: All = False,
             weight: Annotated[int | None, typer.Option("-w", "--weight", min=0, help="0: the oldest page of all "
                                                        "goes.")] = None,
             cap: Annotated[int | None, typer.Option("-c", "--cap", min=0, help="Pages at most; 0: no cap.")] = None,
             compress: Annotated[int | None, typer.Option("-p", "--compress", min=0, max=1,
                                                          help="1: lz4, 0: raw.")] = None,
             form: Annotated[str | None, typer.Option(help="raw, lz4, dedup or tze.")] = None) -> int:
    """Change a guest's weight, cap, or the form of what it stores from now on."""
    from hypervisor.toolstack.tmem_control import set_

    return _run(context, set_, _named(guest, everybody, "tmem-set"), weight=weight, cap=cap, compress=compress,
                form=form)


@tmem.command("tmem-freeable")
def tmem_freeable(context: typer.Context) -> int:
    """Show how many MiB could be had at once."""
    from hypervisor.toolstack.tmem_control import freeable

    return _run(context, freeable)


@tmem.command("tmem-shared-auth")
def tmem_shared_auth(context: typer.Context, guest: Guest = None,
                     secret: Annotated[str | None, typer.Argument(help="32 hexadecimal digits or a UUID.")] = None,
                     everybody: Annotated[bool, typer.Option("--all", help="All guests that are attached; the one "
                                                             "argument is the secret then.")] = False,
                     deny: Annotated[bool, typer.Option("--deny", help="Not any more.")] = False,
                     new: Annotated[bool, typer.Option("--new", help="Make a secret, and print it.")] = False) -> int:
    """Let a guest join the shared pool of a secret."""
    from hypervisor.toolstack.tmem_control import shared_auth

    if everybody:
        guest, secret = (None, guest) if secret is None else (guest, secret)
    return _run(context, shared_auth, _named(guest, everybody, "tmem-shared-auth"), secret, not deny, new)
