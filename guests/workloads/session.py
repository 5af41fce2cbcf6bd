"""One run of a guest, from the order to the last line.

    order -> attach -> prepare -> "ready" -> go -> work -> finish -> "done" -> quit

Standard input brings the order, "go" and "quit", a line each.  Standard output carries nothing but events, one JSON
object a line:

    {"event": "ready"}                            memory is filled, the work may begin; in hardware mode "pager" is
                                                  the pid of the guest's pager
    {"event": "done", "operations", "seconds", "virtual_seconds", "pages_verified", "mismatches", "cpu_s", "latency"}
                                                  latency: how many operations took how long (`shm.latency`)
    {"event": "failed", "error": one line}        a wrong page, or anything else that ends the work

Exit status: 0 done; 1 failed, or the hypervisor is gone; 2 the order cannot be carried out; 128 + n after signal n.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic_ns, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

from guests.device import Device
from guests.disk import Disk
from guests.hostcache import FEATURE, HostCaches
from guests.kernel import Kernel
from guests.workloads import load
from guests.workloads.leave import END_OF_INPUT, LAST_WORD, Departure, Leave, Reason
from guests.workloads.order import Order, options_of, order_of
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.diskcost import NANO, model_named
from shm.errors import HypervisorGone, MemcommonsError, UsageProblem
from shm.latency import bucket_of, empty, trimmed

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.workloads.base import Workload

ORDER_SECONDS = 60.0            # for the order to come
GO_SECONDS = 3600.0             # for go to come: other guests may still be preparing
SWAP_FACTOR = 2                 # the guest's swap disk, in its whole memory, at least

Connect = Callable[..., "Guest"]


def run(connect: Connect) -> int:
    """Serve one order; return the exit status."""
    departure = Departure("guest")
    departure.watch_signals()
    departure.watch_input()
    try:
        order = order_of(_order_line(departure))
        departure.title = f"guest {order.name!r}"
        _serve(order, departure, connect)
    except Leave as leave:
        return _left(departure, leave.reason)
    except HypervisorGone as gone:
        return _left(departure, Reason(1, str(gone)))
    except UsageProblem as problem:
        complain(str(problem))
        return 2
    except MemcommonsError as error:
        return _failed(str(error))
    except Exception as error:
        traceback.print_exc()
        return _failed(f"{type(error).__name__}: {error}")
    return 0


def _order_line(departure: Departure) -> str | None:
    try:
        return departure.line(ORDER_SECONDS)
    except Leave as leave:
        if leave.reason is END_OF_INPUT:
            return None
        raise


def _left(departure: Departure, reason: Reason) -> int:
    departure.say(reason)
    return reason.status


def _failed(error: str) -> int:
    try:
        say("failed", error=" ".join(error.split()))
    except Leave:
        complain(error)
    return 1


def complain(line: str) -> None:
    """Write one line to standard error, whatever it held."""
    print(" ".join(line.split()), file=sys.stderr, flush=True)


def say(event: str, **facts: Any) -> None:
    """Write one event; Leave when nobody reads it."""
    line = memoryview((json.dumps({"event": event, **facts}) + "\n").encode())
    try:
        while line:
            line = line[os.write(1, line):]
    except OSError:
        raise Leave(Reason(1, "standard output was closed")) from None


def _serve(order: Order, departure: Departure, connect: Connect) -> None:
    """Attach and work.  What was opened is closed whatever happens, the guest last."""
    options, kind = options_of(order.name, order.workload, order.options), load(order.workload)
    try:
        kind.check(options)
    except UsageProblem as problem:
        raise UsageProblem(f"guest {order.name!r}: {problem}") from None
    with ExitStack() as open_things:
        guest = connect(order.cluster, order.name, ram=order.ram, max_mem=order.max_mem, weight=order.weight,
                        faults=order.faults)
        open_things.callback(guest.close)
        open_things.callback(departure.dismiss)      # its own leaving looks like the hypervisor's from here
        departure.watch_hypervisor(guest.wait_gone)
        workload = kind(options, order.seed)
        workload.device = device = Device.of(guest.counters, model_named(order.disk.latency), order.disk.time,
                                             order.disk.direct)
        if FEATURE in guest.features:
            workload.caches = HostCaches(guest.tmem, guest.counters, order.disk.trim)
        open_things.callback(workload.close)
        swap = open_things.enter_context(_swap_disk(order, workload, guest))
        swap.behind(device)
        kernel = _kernel(order, workload, guest, swap if workload.caches is None else workload.caches.front(swap))
        workload.prepare(kernel, guest, _between(kernel, departure.going_on))
        _perform(order, workload, kernel, departure)
        if kernel is not None:
            kernel.close()


def _kernel(order: Order, workload: "Workload", guest: "Guest", swap: Disk) -> Kernel | None:
    """Return the guest's kernel, which takes all its memory; None for a workload that uses the memory itself."""
    if not workload.has_kernel:
        return None
    return Kernel(guest, swap, cache_pages=workload.cache_pages, selfballooning=order.selfballoon)


def _swap_disk(order: Order, workload: "Workload", guest: "Guest") -> Disk:
    memory = max(order.ram, order.max_mem or 0) // PAGE_SIZE
    return Disk.create(max(SWAP_FACTOR * memory, workload.anonymous_pages), guest.counters,
                       reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)


def _perform(order: Order, workload: "Workload", kernel: Kernel | None, departure: Departure) -> None:
    """Work on go, report, and hold on to all memory until quit."""
    say("ready", **_pager(workload.guest))
    _await(departure, "go", GO_SECONDS)
    done = work(order, workload, _between(kernel, departure.going_on))
    workload.finish()
    if kernel is not None:
        kernel.check()
    departure.work_is_done()
    counters = workload.guest.counters
    say("done", operations=done.operations, seconds=done.seconds, virtual_seconds=done.virtual_seconds,
        pages_verified=int(counters[Count.PAGES_VERIFIED]), mismatches=int(counters[Count.MISMATCHES]),
        cpu_s=done.cpu_seconds, latency=trimmed(done.latency))
    _await(departure, LAST_WORD, None)


def _pager(guest: "Guest") -> dict[str, int]:
    """Return who restores pages for this guest: nobody in software mode."""
    pager = getattr(guest.memory, "pager", None)
    return {} if pager is None else {"pager": pager.pid}


def _between(kernel: Kernel | None, going_on: Callable[[], None]) -> Callable[[], None]:
    """Return what is done between two operations: a kernel that balloons gets its moment there."""
    if kernel is None or not kernel.ticks:
        return going_on
    tick = kernel.tick

    def between() -> None:
        going_on()
        tick()
    return between


def _await(departure: Departure, word: str, seconds: float | None) -> None:
    line = departure.line(seconds)
    if line is None:
        raise UsageProblem(f"{departure.title}: {word!r} did not come on standard input within {seconds:.0f} s")
    if line.strip() != word:
        raise UsageProblem(f"{departure.title}: {line[:60]!r} came on standard input; {word!r} was expected")


class Done(NamedTuple):
    """What the work came to."""

    operations: int
    seconds: float               # real ones
    virtual_seconds: float       # that the guest's clock got before the real one
    cpu_seconds: float           # of this process, user and system
    latency: list[int]           # a histogram of the operations' times by the guest's clock


def work(order: Order, workload: "Workload", going_on: Callable[[], None]) -> Done:
    """Do operations until they are enough, or time or the work is over."""
    step, wanted, done, latency = workload.step, order.operations, 0, empty()
    ahead = _ahead_of(workload.device)
    cpu, first = process_time(), ahead()
    waited, began = first, monotonic_ns()
    now, until = began, began + int(NANO * min(order.limit_seconds, order.seconds or order.limit_seconds))
    while done != wanted and now < until:
        going_on()
        if not step():
            break
        done += 1
        start, before, now, waited = now, waited, monotonic_ns(), ahead()
        latency[bucket_of(now - start + waited - before)] += 1
    return Done(done, (monotonic_ns() - began) / NANO, (ahead() - first) / NANO, process_time() - cpu, latency)


def _ahead_of(device: Device | None) -> Callable[[], int]:
    """Return what tells how far the guest's clock is before the real one: never, without a disk that costs anything."""
    return device.virtual_ns if device is not None and device.costs else int
