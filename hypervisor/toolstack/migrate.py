"""`memcommons ctl ... tmem-save, tmem-restore, tmem-migrate`: carries a guest's tmem from one place to another.

Each end is one connection, which undoes what it began when it closes before its commit.  So whatever ends this process,
and whenever, the guest has its tmem: at the source until that was told `moved`, and at the target from then on.

The one copy too many is the target's, when the source takes its guest back at the last moment: the source's refusal is
a reason to drop it.  A source that answers nothing leaves open what it did: the copy stays, and the line says so.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from hypervisor.toolstack.table import number
from shm import door
from shm.abi import PAGE_SIZE
from shm.errors import HypervisorGone, UsageProblem
from shm.units import format_size

PIPE = "-"
Report = dict[str, Any]


class Session:
    """One connection to one cluster; a context manager."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.link = door.connect(cluster)

    def ask(self, call: str, **more: Any) -> dict[str, Any]:
        """Give one order and return the answer; UsageProblem with the hypervisor's own line when it refuses."""
        self.say(call, **more)
        return self.hear()

    def say(self, call: str, **more: Any) -> None:
        """Give one order, to `hear` the answer later: nothing else is to be said before."""
        try:
            door.send(self.link, {"call": call} | more)
        except OSError as error:
            raise HypervisorGone(f"the hypervisor of {self.cluster!r} is gone: {error}") from error

    def hear(self) -> dict[str, Any]:
        answer, _ = door.receive(self.link)
        if "error" in answer:
            raise UsageProblem(f"cluster {self.cluster!r}: {answer['error']}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()


def pieces(source: Session, guest: str, mode: str) -> Iterator[bytes]:
    """Begin to save a guest, and yield the stream to its end."""
    if not source.ask("tmem-save-begin", guest=guest, mode=mode)["begun"]:
        raise UsageProblem(f"guest {guest!r} has no pools: there is nothing to save")
    done = False
    while not done:
        answer = source.ask("tmem-save-next")
        done = answer["done"]
        yield answer["data"]


def migrate(source: str, guest: str, target: str, mode: str = "track", share: bool = False) -> Report:
    """Move a guest's tmem to another cluster while the guest runs; return what that took."""
    with Session(source) as from_, Session(target) as to:
        to.say("tmem-restore-begin", share=share)
        for piece in pieces(from_, guest, mode):             # the source finds the next while the target stores this
            to.hear()
            to.say("tmem-restore-next", data=piece)
        to.hear()
        restored = to.ask("tmem-restore-commit")
        try:
            report = from_.ask("tmem-save-end", moved=target)
        except UsageProblem:                                 # it stays there: nobody wants the copy
            to.ask("tmem-restore-drop", token=restored["token"])
            raise
        except HypervisorGone as error:
            raise HypervisorGone(f"{error}; whether guest {guest!r} was moved is not known, so its pages stay in the "
                                 f"target: `memcommons ctl {target} tmem-destroy {guest}` drops them") from error
    return report | {"from": source, "to": target, "persistent": restored["persistent"]}


def save(source: str, guest: str, out: BinaryIO, mode: str = "track") -> Report:
    """Write a guest's tmem, as it is at one moment, to `out`; it stays where it is."""
    with Session(source) as from_:
        for piece in pieces(from_, guest, mode):
            out.write(piece)
        report = from_.ask("tmem-save-end")
    out.flush()
    return report | {"from": source}


def restore(target: str, stream: BinaryIO, share: bool = False) -> Report:
    """Read what `save` has written; the guest waits then for whoever attaches with its token."""
    with Session(target) as to:
        room = to.ask("tmem-restore-begin", share=share)["room"]
        while piece := stream.read(room):
            to.ask("tmem-restore-next", data=piece)
        return to.ask("tmem-restore-commit") | {"to": target}


@contextmanager
def _written(name: str) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes its name when all of it is there."""
    if name == PIPE:
        yield sys.stdout.buffer
        return
    part = Path(f"{name}.part")
    try:
        with ExitStack() as undo:
            undo.callback(part.unlink, missing_ok=True)
            with part.open("wb") as out:
                os.fchmod(out.fileno(), 0o600)               # pages of a guest, and the token that opens them
                yield out
            part.rename(name)
            undo.pop_all()
    except OSError as error:
        raise UsageProblem(f"{name}: {error.strerror or error}") from error


@contextmanager
def _read(name: str) -> Iterator[BinaryIO]:
    try:
        with ExitStack() as held:
            yield sys.stdin.buffer if name == PIPE else held.enter_context(Path(name).open("rb"))
    except OSError as error:
        raise UsageProblem(f"{name}: {error.strerror or error}") from error


# for people

def _tell(report: Report, sentence: Callable[[Report], str], as_json: bool, aside: bool = False) -> int:
    """Print a report; `aside`, on standard error: the stream has the other."""
    print(json.dumps(report) if as_json else sentence(report), file=sys.stderr if aside else sys.stdout)
    return 0


def _sent(report: Report) -> str:
    return (f"{number(report['pages'])} pages were sent ({format_size(report['bytes'])}, {report['seconds']:.2f} s), "
            f"{number(report['resent'])} of them after the first pass, and {number(report['gone'])} flushes, in "
            f"{number(report['rounds'])} rounds more")


def show_migrate(source: str, guest: str, target: str, mode: str, share: bool, as_json: bool) -> int:
    def sentence(report: Report) -> str:
        return (f"guest {guest!r} has its tmem in {target!r} now: {number(report['persistent'])} persistent pages "
                f"({format_size(report['persistent'] * PAGE_SIZE)}).  {_sent(report)}.  It was held still for "
                f"{report['downtime_s'] * 1000:.1f} ms.")
    return _tell(migrate(source, guest, target, mode, share), sentence, as_json)


def show_save(source: str, guest: str, name: str, mode: str, as_json: bool) -> int:
    with _written(name) as out:
        report = save(source, guest, out, mode)
    return _tell(report, lambda told: f"guest {guest!r} is saved: {_sent(told)}.  It was held still for "
                                      f"{told['downtime_s'] * 1000:.1f} ms.", as_json, aside=name == PIPE)


def show_restore(target: str, name: str, share: bool, as_json: bool) -> int:
    with _read(name) as stream:
        report = restore(target, stream, share)
    return _tell(report, lambda told: f"guest {told['guest']!r} waits in {target!r} with {number(told['persistent'])} "
                                      f"persistent pages; it attaches with resume={told['token']!r}", as_json)
