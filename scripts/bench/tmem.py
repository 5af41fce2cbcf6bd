"""Put and get of real pages: our storage forms beside memcached, redis, LMDB, and the bare copy.

    .venv/bin/python scripts/bench/tmem.py [--forms raw,lz4,dedup,tze] [--kinds sqlite,sources,arrays]
                                           [--sizes 1,64,256] [--rounds 15] [--json FILE]

One operation is a pair: a put of a batch and the get that follows, and every figure is its time over its pages.  On our
side the pool is ephemeral, so a get removes the page and the next put is a new one.

Rule 1: contestants are timed in turn, round after round, and a ratio is the median of the rounds' own ratios.
Rule 2: whoever has a server is timed in both placements, on the client's core and on another; the better one counts,
        for us and for them.
Rule 3: before anything is timed, every batch is put, got and compared with what was put.

Two sides that poll suffer from any third process more than two that sleep: with other work on the machine our figures
grow far more than the servers'.  The load before the run is printed; believe runs that began with little.
"""

import argparse
import json
import os
import secrets
import statistics
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter_ns

import numpy as np
from measure import once
from pages import KINDS
from peers import Copy, Lz4, Peer, knows_forms, lmdb_on_tmpfs, pool_of
from rich.console import Console
from rich.table import Table
from servers import NotInstalled, Server, memcached, redis

FORMS = ("raw", "lz4", "dedup", "tze")
SIZES = (1, 64, 256)
PAGES = 1024                 # of each kind
TURN_NS = 8_000_000          # how long one contestant is timed before it is the next one's turn
WARM_NS = 2_000_000          # untimed, ahead of each turn: processors' caches, and how long either side polls
SAME, OTHER = "same core", "two cores"
# What the pair's time may be at most, of a rival's: by batch size, of the best server's; of bare lz4's.
GOALS = {1: 0.7, 64: 0.4}
LZ4_GOAL = 1.5


@dataclass(frozen=True)
class Figure:
    """One contestant on one kind of pages in one batch size, in its better placement."""

    kind: str
    size: int
    name: str
    us: float                    # a page put and got
    placement: str
    of_server: float | None      # ratio to the best server
    of_limit: float              # ratio to the bare copy
    of_lz4: float | None
    spread: tuple[float, float]  # of the ratio to the best server, or else to the bare copy
    placements: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    what: str
    ratio: float
    goal: float


Times = dict[tuple[str, str], list[float]]       # contestant, placement -> microseconds a page, a round each


def measure(peers: list[Peer], pages: np.ndarray, size: int, rounds: int) -> Times:
    """Time all contestants on batches of `size` pages, in turn."""
    times: Times = defaultdict(list)
    for peer in peers:
        peer.load(pages, size)
        _verify(peer, pages, size)
    cores = sorted(os.sched_getaffinity(0))
    try:
        for _ in range(rounds):
            for placement, core in ((SAME, cores[0]), (OTHER, cores[-1])):
                for peer in (peer for peer in peers if placement == SAME or (peer.pid and len(cores) > 1)):
                    _place(peer, {cores[0]}, {core})
                    times[peer.name, placement].append(_turn(peer, len(pages) // size) / size)
    finally:
        for peer in peers:
            _place(peer, set(cores), set(cores))
    return times


def _verify(peer: Peer, pages: np.ndarray, size: int) -> None:
    for batch in range(len(pages) // size):
        if not np.array_equal(peer.pair(batch), pages[batch * size:(batch + 1) * size]):
            raise SystemExit(f"{peer.name}: the pages got are not the pages put (batch {batch} of {size})")


def _place(peer: Peer, here: set[int], there: set[int]) -> None:
    """Let this process run `here`, and the peer's server, with its threads, `there`."""
    os.sched_setaffinity(0, here)
    if peer.pid:
        for thread in Path(f"/proc/{peer.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), there)


def _turn(peer: Peer, batches: int) -> float:
    """Return the microseconds of one pair."""
    order = cycle(range(batches))
    start, warmed = perf_counter_ns(), 0
    while not warmed or perf_counter_ns() - start < WARM_NS:
        peer.pair(next(order))
        warmed += 1
    took = (perf_counter_ns() - start) / warmed
    return once(lambda: peer.pair(next(order)), max(1, int(TURN_NS / took)))


def figures(kind: str, size: int, times: Times, servers: set[str]) -> list[Figure]:
    """Return the contestants' figures, each in its better placement, the fastest first."""
    better = {name: min((key for key in times if key[0] == name), key=lambda key: statistics.median(times[key]))
              for name, _ in times}
    best = min((better[name] for name in servers), key=lambda key: statistics.median(times[key]), default=None)

    def ratios(name: str, rival: tuple[str, str]) -> list[float]:
        return [a / b for a, b in zip(times[better[name]], times[rival], strict=True)]

    found = []
    for name, key in better.items():
        of_server = ratios(name, best) if best else None
        of_limit = ratios(name, better[Copy.name])
        of_lz4 = statistics.median(ratios(name, better[Lz4.name])) if name == "lz4" and Lz4.name in better else None
        found.append(Figure(
            kind, size, name, statistics.median(times[key]), key[1] if len(_of(times, name)) > 1 else "",
            statistics.median(of_server) if of_server else None, statistics.median(of_limit), of_lz4,
            (min(of_server or of_limit), max(of_server or of_limit)), _of(times, name)))
    return sorted(found, key=lambda figure: figure.us)


def _of(times: Times, name: str) -> dict[str, float]:
    return {placement: statistics.median(took) for (who, placement), took in times.items() if who == name}


def verdicts(found: list[Figure]) -> list[Verdict]:
    """Hold our figures against the goals."""
    held = []
    for figure in found:
        if figure.name == "raw" and figure.of_server and figure.size in GOALS:
            held.append(Verdict(f"{figure.kind}: raw, {figure.size} a call, of the best server",
                                figure.of_server, GOALS[figure.size]))
        if figure.of_lz4 and figure.size == 64:
            held.append(Verdict(f"{figure.kind}: lz4, {figure.size} a call, of bare lz4", figure.of_lz4, LZ4_GOAL))
    return held


def table(found: list[Figure]) -> Table:
    """Show one kind and size; the names of our forms are bold."""
    first = found[0]
    shown = Table(title=f"{first.kind} pages, {first.size} a call", title_justify="left")
    for column, side in (("", "left"), ("us a page", "right"), ("better on", "left"), ("other us", "right"),
                         ("x best server", "right"), ("min to max", "right"), ("x bare copy", "right"),
                         ("x bare lz4", "right")):
        shown.add_column(column, justify=side)   # type: ignore[arg-type]
    for figure in found:
        others = [us for placement, us in figure.placements.items() if placement != figure.placement]
        name = f"[bold]{figure.name}[/bold]" if figure.name in FORMS else figure.name
        shown.add_row(name, f"{figure.us:.2f}", figure.placement,
                      f"{others[0]:.2f}" if figure.placement and others else "",
                      _ratio(figure.of_server), f"{figure.spread[0]:.2f} to {figure.spread[1]:.2f}",
                      _ratio(figure.of_limit), _ratio(figure.of_lz4))
    return shown


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def contestants(forms: list[str], folder: str, stack: ExitStack) -> tuple[list[Peer], list[str]]:
    """Start everybody; return them, and why some are missing."""
    peers: list[Peer] = [Copy()]
    missing = []
    for form in forms:
        if form != "raw" and not knows_forms():
            missing.append(f"form {form}: this hypervisor stores raw pages only; skipped")
            continue
        cluster = f"bench-{os.getpid()}-{secrets.token_hex(2)}"
        peers.append(stack.enter_context(pool_of(form, cluster)))
    for start in (memcached, redis):
        try:
            peers.append(stack.enter_context(start(folder)))
        except NotInstalled as error:
            missing.append(str(error))
    try:
        peers.append(stack.enter_context(lmdb_on_tmpfs()))
    except ImportError:
        missing.append("lmdb is not here: pip install 'memcommons[bench]'")
    try:
        peers.append(Lz4())
    except ImportError:
        missing.append("lz4 is not here: pip install 'memcommons[bench]'")
    return peers, missing


def run(forms: list[str], kinds: list[str], sizes: list[int], rounds: int, console: Console) -> list[Figure]:
    """Time everybody on everything, and show each table as soon as it is known."""
    found: list[Figure] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        peers, missing = contestants(forms, folder, stack)
        console.print(f"load before: {os.getloadavg()[0]:.2f}", *missing, sep="\n")
        servers = {peer.name for peer in peers if isinstance(peer, Server)}
        for kind in kinds:
            pages = KINDS[kind](PAGES)
            for size in sizes:
                found += (rows := figures(kind, size, measure(peers, pages, size, rounds), servers))
                console.print(table(rows))
    for verdict in verdicts(found):
        console.print(f"{'met ' if verdict.ratio <= verdict.goal else 'MISSED'}  {verdict.what}: "
                      f"{verdict.ratio:.2f}x   goal {verdict.goal:g}")
    return found


def report() -> None:
    """Run with every default, for run.py."""
    run(list(FORMS), list(KINDS), list(SIZES), 15, Console(width=120))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write all figures here")
    wanted = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    found = run(wanted.forms.split(","), wanted.kinds.split(","), [int(size) for size in wanted.sizes.split(",")],
                wanted.rounds, Console(width=120))
    if wanted.json:
        content = {"load_before": load, "figures": [asdict(figure) for figure in found],
                   "goals": [asdict(verdict) for verdict in verdicts(found)]}
        wanted.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
