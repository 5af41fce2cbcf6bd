"""`memcommons ctl ... tmem-save, tmem-restore, tmem-migrate`: carries a guest's tmem from one place to another.

Each end is one connection, which undoes what it began when it closes before its commit.  So whatever ends this process,
and whenever, the guest has its tmem: at the source until that was told `moved`, and at the target from then on.

The one copy too many is the target's, when the source takes its guest back at the last moment: the source's refusal is
a reason to drop it.  A source that answers nothing leaves open what it did: the copy stays, and the line says so.
"""

import json
import os
import signal
import sys
import tempfile
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
        try:
            answer, _ = door.receive(self.link)
        except HypervisorGone as error:
            raise HypervisorGone(f"cluster {self.cluster!r}: {error}") from error
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
    if source == target:
        raise UsageProblem(f"guest {guest!r} is to move from {source!r} to {target!r}: name another cluster to move to")
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
    """Give a file to write to; a plain one takes its name when all of it is there.  What is no plain file is no name
    to take: a device or a pipe is written to as it stands.
    """
    if not name:
        raise UsageProblem("tmem-save: name a file, or - for standard output")
    with _complained(name, "standard output"):
        if name == PIPE or (os.path.exists(name) and not os.path.isfile(name)):
            with open(os.dup(1) if name == PIPE else name, "wb") as out:
                yield out
        else:
            yield from _replaced(Path(os.path.realpath(name)))


def _replaced(target: Path) -> Iterator[BinaryIO]:
    """Give a file of its own, 0600, beside `target`, whose name it takes at the end; whatever ends this, it is gone."""
    with _ended_in_order(), ExitStack() as undo:
        fd, part = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".part", dir=target.parent)
        undo.callback(Path(part).unlink, missing_ok=True)
        with os.fdopen(fd, "wb") as out:                     # pages of a guest, and the token that opens them
            yield out
        os.rename(part, target)
        undo.pop_all()


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind this process, as Ctrl-C does, instead of ending it where it stands."""
    def leave(signum: int, _: object) -> None:
        sys.exit(128 + signum)

    fatal = [signum for signum in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(signum) == signal.SIG_DFL]
    for signum in fatal:                                     # not what is ignored: nohup
        signal.signal(signum, leave)
    try:
        yield
    finally:
        for signum in fatal:
            signal.signal(signum, signal.SIG_DFL)


@contextmanager
def _read(name: str) -> Iterator[BinaryIO]:
    with _complained(name, "standard input"), open(os.dup(0) if name == PIPE else name, "rb") as stream:
        yield stream


@contextmanager
def _complained(name: str, stream: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageProblem(f"{stream if name == PIPE else name}: {error.strerror or error}") from error


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
                                      f"{told['downtime_s'] * 1000:.1f} ms.", as_json, aside=not os.path.isfile(name))


def show_restore(target: str, name: str, share: bool, as_json: bool) -> int:
    with _read(name) as stream:
        report = restore(target, stream, share)
    return _tell(report, lambda told: f"guest {told['guest']!r} waits in {target!r} with {number(told['persistent'])} "
                                      f"persistent pages; it attaches with resume={told['token']!r}", as_json)
