"""The command `memcommons`: arguments in, exit status out.

    0   all verified
    1   a guest failed, or a page was wrong
    2   bad usage or scenario: one line on standard error, whatever it was, and nothing left behind
    130, 143   interrupted (SIGINT, SIGTERM), everything stopped and cleaned up

Each command imports what it needs when it runs, so that `--help` and a typing error are answered at once.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from hypervisor.schemes import offered
from hypervisor.toolstack.claims.commands import commands as claims_commands
from hypervisor.toolstack.compare.commands import commands as compare_commands
from hypervisor.toolstack.curves.commands import commands as curves_commands
from hypervisor.toolstack.interruption import Interrupted, Interruption
from hypervisor.toolstack.reporting.commands import commands as report_commands
from hypervisor.toolstack.states_cli import states
from hypervisor.toolstack.tmem_cli import tmem
from shm.errors import MemcommonsError, UsageProblem

SCHEME_NAMES = ", ".join(offered())
OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
# Typer brings its own click or uses the one installed: either way this is the base of every usage error.
CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False,
                  help="Transcendent memory and CMM2, running on real memory.")
ctl = typer.Typer(help="Speak to a running cluster.")
ctl.add_typer(tmem)
ctl.add_typer(states)
app.add_typer(ctl, name="ctl")
app.add_typer(compare_commands)
app.add_typer(claims_commands)
app.add_typer(report_commands)
app.add_typer(curves_commands)


def main() -> int:
    """Run the command line; return the exit status."""
    _hold_standard_descriptors()
    try:
        status = app(prog_name="memcommons", standalone_mode=False)
        if status == INTERRUPTED:                        # typer has made it an exit status, without a word
            print("stopped by SIGINT", file=sys.stderr)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)     # nobody reads; the interpreter flushes once more at its end
        return FAILED
    except (CLICK_ERROR, MemcommonsError, Interrupted, KeyboardInterrupt, typer.Abort) as error:
        status, lines = _answer(error)
        print(*lines, sep="\n", file=sys.stderr)
    return status if isinstance(status, int) else OK


def _answer(error: BaseException) -> tuple[int, list[str]]:
    """Return the exit status and the lines for what ended a command early."""
    if isinstance(error, CLICK_ERROR):
        return BAD_USAGE, [_usage_line(error)]
    if isinstance(error, MemcommonsError):
        return (BAD_USAGE if isinstance(error, UsageProblem) else FAILED), [str(error)]
    if isinstance(error, Interrupted):
        return error.exit_status, [*error.problems, f"{error}: guests and hypervisor have been ended"]
    return INTERRUPTED, ["stopped by SIGINT"]


def _hold_standard_descriptors() -> None:
    """Where 0, 1 or 2 is closed, put /dev/null: else the next file opened would become standard output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _usage_line(error: Any) -> str:
    """Return click's message on one line, with where to read on."""
    context = getattr(error, "ctx", None)
    command = context.command_path.replace("{cluster}", "CLUSTER") if context else "memcommons"
    return f"{command}: {' '.join(error.format_message().split()).rstrip('.')}; see {command} --help"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version
        print(f"memcommons {version('memcommons')}")
        raise typer.Exit()


@app.callback()
def memcommons(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                                     help="Show the version and leave.")] = False) -> None:
    """Transcendent memory and CMM2, running on real memory."""


@app.command()
def run(
    scenario: Annotated[Path | None, typer.Argument(help="A scenario (TOML); the default one without.")] = None,
    scheme: Annotated[str | None, typer.Option(help="Scheme instead of the scenario's; a comma list compares. "
                                               f"Known: {SCHEME_NAMES}.")] = None,
    budget: Annotated[str | None, typer.Option(help="Budget of the arena, such as 128MiB.")] = None,
    guests: Annotated[int | None, typer.Option(min=1, help="Guests in all, in the scenario's proportions.")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long the baseline works.")] = None,
    ops: Annotated[int | None, typer.Option(help="Operations of each guest, instead of a time.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the guests' random choices.")] = None,
    faults: Annotated[str | None, typer.Option(help="auto, software or hardware.")] = None,
    disk: Annotated[str | None, typer.Option(help="What disks cost: none, ssd, hdd or network.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for summary.json, samples.jsonl, events.jsonl.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
) -> int:
    """Run a scenario twice, with all memory granted and under its scheme, and show what was saved and what it cost."""
    from hypervisor.toolstack import reading
    from hypervisor.toolstack.report import journal_in, progress_on, show

    schemes = reading.listed(scheme)
    options = {"budget": budget, "scheme": schemes[0] if schemes else None, "seconds": seconds, "operations": ops,
               "seed": seed, "faults": faults, "disk": disk}
    given = {key: value for key, value in options.items() if value is not None}
    with Interruption() as interruption:
        from hypervisor.toolstack.means import Means
        from hypervisor.toolstack.run import run as run_scenario

        path = scenario or reading.default_path()
        read = reading.load(path, given, guests)
        means = Means(interruption, journal_in(out, path, sys.argv[1:]), progress_on(sys.stderr, quiet or as_json))
        outcome = run_scenario(read, schemes or [read.table.scheme], means)
        return show(outcome, means.journal, as_json)


@app.command()
def serve(
    name: Annotated[str, typer.Option(help="The cluster's name, by which guests join.")],
    budget: Annotated[str, typer.Option(help="Budget of the arena, such as 256MiB.")],
    scheme: Annotated[str, typer.Option(help=f"How the cluster overcommits: {SCHEME_NAMES}.")] = "cmm2+tmem",
    swap: Annotated[str | None, typer.Option(help="Size of the swap disk; twice the budget without.")] = None,
    reclaim: Annotated[str, typer.Option(help="hint-after-choice or u-e-v-p-s.")] = "hint-after-choice",
    form: Annotated[str, typer.Option(help="How tmem pages are stored: raw, lz4, dedup or tze.")] = "raw",
    quirks: Annotated[str, typer.Option(help="none, or xen-4.2: tmem as Xen had it, faults too.")] = "none",
    write_back: Annotated[bool, typer.Option("--write-back", help="Persistent tmem pages may be swapped.")] = False,
    dedup_across: Annotated[bool, typer.Option("--dedup-across", help="Guests share equal pages; they can find out "
                                               "by timing who has which.")] = False,
    cmma: Annotated[str, typer.Option(help="How guests' processors execute ESSA: architected, kvm or "
                                      "off.")] = "architected",
) -> int:
    """Run a hypervisor in the foreground until it is told to stop."""
    from hypervisor.toolstack.serve import serve as serve_cluster
    from hypervisor.toolstack.serve import serve_order

    order = serve_order(name, budget, scheme, swap, reclaim, form, quirks, write_back, dedup_across, cmma)
    with Interruption() as interruption:
        return serve_cluster(order, interruption)


@app.command()
def clean(cluster: Annotated[str | None, typer.Argument(help="One cluster; all dead ones without.")] = None) -> None:
    """Remove what dead clusters left in /dev/shm, and their queues."""
    from hypervisor.toolstack.sweep import sweep

    for line in sweep(cluster):
        print(line)


@ctl.callback()
def cluster_of(context: typer.Context, cluster: Annotated[str, typer.Argument(help="The cluster's name.")]) -> None:
    """Speak to a running cluster."""
    context.obj = cluster


def _control(context: typer.Context, command: Callable[..., int], *arguments: Any) -> int:
    from hypervisor.toolstack.connection import call

    return command(lambda question: call(context.obj, question), *arguments)


@ctl.command("list")
def ctl_list(context: typer.Context,
             as_json: Annotated[bool, typer.Option("--json", help="The reply as JSON.")] = False) -> int:
    """Show the cluster and its guests."""
    from hypervisor.toolstack.control import show_list

    return _control(context, show_list, as_json)


@ctl.command("set-budget")
def ctl_set_budget(context: typer.Context, size: Annotated[str, typer.Argument(help="Such as 96MiB.")]) -> int:
    """Change the budget; what is over it goes back to the machine at once."""
    from hypervisor.toolstack.control import set_budget

    return _control(context, set_budget, size)


@ctl.command("audit")
def ctl_audit(context: typer.Context) -> int:
    """Compare the frame ledger with the kernel's count."""
    from hypervisor.toolstack.control import audit

    return _control(context, audit)


@ctl.command("stop")
def ctl_stop(context: typer.Context) -> int:
    """Stop the cluster."""
    from hypervisor.toolstack.control import stop

    return _control(context, stop)


Mode = Annotated[str, typer.Option(help="track: nothing is frozen; live or stop: its tmem is, as Xen did.")]
Share = Annotated[bool, typer.Option("--share", help="Let it join the shared pools it is in there too.")]
Json = Annotated[bool, typer.Option("--json", help="The report as JSON.")]


@ctl.command("tmem-save")
def ctl_tmem_save(context: typer.Context, guest: Annotated[str, typer.Argument(help="The guest's name.")],
                  file: Annotated[str, typer.Argument(help="Where to; - is standard output.")],
                  mode: Mode = "track", as_json: Json = False) -> int:
    """Save a guest's tmem to a file; the guest keeps it."""
    from hypervisor.toolstack.migrate import show_save

    return show_save(context.obj, guest, file, mode, as_json)


@ctl.command("tmem-restore")
def ctl_tmem_restore(context: typer.Context,
                     file: Annotated[str, typer.Argument(help="From where; - is standard input.")],
                     share: Share = False, as_json: Json = False) -> int:
    """Restore a saved guest's tmem, for whoever attaches with its token."""
    from hypervisor.toolstack.migrate import show_restore

    return show_restore(context.obj, file, share, as_json)


@ctl.command("tmem-migrate")
def ctl_tmem_migrate(context: typer.Context, guest: Annotated[str, typer.Argument(help="The guest's name.")],
                     target: Annotated[str, typer.Argument(help="The cluster to move its tmem to.")],
                     mode: Mode = "track", share: Share = False, as_json: Json = False) -> int:
    """Move a guest's tmem to another cluster while the guest runs."""
    from hypervisor.toolstack.migrate import show_migrate

    return show_migrate(context.obj, guest, target, mode, share, as_json)


if __name__ == "__main__":
    sys.exit(main())
