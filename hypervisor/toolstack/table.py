"""Tables that a person can read, made of a summary and of nothing else: 100 columns wide, good on a pipe too.

Memory is shown in three ways, and each row says which: what psutil sees of the arena, what the kernel counts of the
same objects, and the whole processes with their interpreters.  A reader must not mistake one for another.
"""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hypervisor.schemes import SCHEMES
from hypervisor.toolstack.faultmode import HARDWARE
from shm.units import format_size

WIDTH = 100
MIB = 1 << 20
DASH = "-"

# What the two runs read, wrote and called, in the order of reading: (name in counters, what people read).
WORK_ROWS = (
    ("guest_disk_reads", "guest disk reads"), ("guest_disk_writes", "guest disk writes"),
    ("guest_swap_reads", "guest swap in"), ("guest_swap_writes", "guest swap out"),
    ("swap_in", "hypervisor swap in"), ("swap_out", "hypervisor swap out"),
    ("volatile_swap_writes", "volatile pages swapped"), ("discards", "discards"),
    ("discard_faults", "discard faults"), ("stable_failures", "make stable failed"),
    ("tmem_puts", "tmem puts"), ("tmem_gets", "tmem gets"), ("tmem_hits", "tmem hits"),
    ("tmem_evictions", "tmem evictions"), ("hypercalls", "hypercalls"), ("multicalls", "multicalls"),
    ("essa", "pages in ESSA orders"), ("faults", "page faults"))

# ... and what there is in hardware mode alone.
HARDWARE_ROWS = (
    ("hardware_faults", "hardware faults"), ("write_faults", "write-protect faults"),
    ("prefetched", "pages prefetched"), ("pager_restored", "restored by pagers"))

# ... and where the host caches guests' disks.
CACHE_ROWS = (
    ("host_cache_gets", "looked for in host cache"), ("host_cache_hits", "found in host cache"),
    ("host_cache_trimmed", "trimmed from host cache"), ("host_cache_dead", "dead in host cache"))


def work_rows(*summaries: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the rows of what was read, written and called, as far as the fault mode and these schemes have them."""
    cached = any(SCHEMES[summary["scheme"]].host_cache for summary in summaries)
    hardware = any(summary["faults"] == HARDWARE for summary in summaries)
    return WORK_ROWS + (CACHE_ROWS if cached else ()) + (HARDWARE_ROWS if hardware else ())


def console_for(stream: Any) -> Console:
    """Return a console on `stream`: its own width on a terminal, 100 columns and no colours on a pipe."""
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    return Console(file=stream, width=None if terminal else WIDTH, highlight=False, soft_wrap=False,
                   markup=False, emoji=False)        # a guest may be named [bold]


def one_run(summary: Mapping[str, Any]) -> RenderableType:
    """Return everything about one scheme's run."""
    title = header(summary, f"scheme {summary['scheme']}")
    return Group(title, _guests(summary), _memory(summary), _work(summary), *_lines(summary))


def header(summary: Mapping[str, Any], schemes: str) -> Text:
    guests = summary["guests"]
    ram = sum(guest["ram_bytes"] for guest in guests)
    return Text(f"{summary['name']}: {schemes}, budget {format_size(summary['budget_bytes'])} for {len(guests)} guests "
                f"with {format_size(ram)}; seed {summary['seed']}, {summary['faults']} faults"
                f"{' in user mode only' if summary['user_mode_only'] else ''}{disk_words(summary['disk'])}",
                style="bold")


def disk_words(disk: Mapping[str, Any]) -> str:
    """Return the disks of a run for its header; nothing where they cost what the page cache takes."""
    if disk["direct"]:
        return ", real disk (O_DIRECT)"
    return "" if disk["latency"] == "none" else f", disk {disk['latency']} in {disk['time']} time"


def disk_line(summary: Mapping[str, Any]) -> str:
    """Return the model, what guests waited by it, and how busy the hypervisor's swap disk was."""
    disk, guests = summary["disk"], summary["guests"]
    waited = {guest["name"]: guest["virtual_seconds"] for guest in guests}
    worst = max(waited, key=waited.__getitem__)
    virtual = f"; virtual waits {sum(waited.values()):.2f} s ({worst} {waited[worst]:.2f})" if waited[worst] else ""
    busy = f"; hypervisor's swap disk busy {disk['swap_busy_s']:.2f} s" if disk["swap_busy_s"] else ""
    return (f"disk:    {disk['latency']}, {disk['latency_ns'] / 1e6:g} ms, {disk['channels']} at once, "
            f"{disk['bytes_per_s'] / 1e6:g} MB/s, {disk['time']} time{virtual}{busy}")


def plain_table(*columns: str, title: str) -> Table:
    """Return an empty table: its first column reads from the left, the others are figures."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold")
    for n, column in enumerate(columns):
        table.add_column(column, justify="left" if n == 0 else "right", overflow="fold")
    return table


def _guests(summary: Mapping[str, Any]) -> Table:
    table = plain_table("guest", "workload", "RAM MiB", "operations", "ops/s", "slow-down", "verified", "wrong",
                        "RSS MiB", title="guests (RSS: mean of the whole process)")
    for guest in summary["guests"]:
        table.add_row(
            guest["name"], guest["workload"], _ram(guest), number(guest["operations"]),
            number(guest["operations_per_s"]), ratio(guest["slowdown"]), number(guest["pages_verified"]),
            number(guest["mismatches"]), mib(guest["rss_bytes"]["mean"]))
    return table


def _ram(guest: Mapping[str, Any]) -> str:
    full, given = mib(guest["ram_bytes"]), mib(guest["ram_given_bytes"])
    return full if full == given else f"{given}/{full}"


def _memory(summary: Mapping[str, Any]) -> Table:
    rss, kernel, processes = summary["rss"], summary["kernel"], summary["processes"]
    rows = [
        ("arena, psutil PSS", rss["baseline_bytes"], rss["measured_bytes"]),
        ("arena, kernel's count", kernel["baseline_bytes"], kernel["measured_bytes"]),
        ("shared since the start, psutil", rss["baseline_shared_bytes"], rss["measured_shared_bytes"]),
        ("whole processes, PSS", processes["baseline"]["pss_bytes"], processes["measured"]["pss_bytes"]),
        ("whole processes, RSS", processes["baseline"]["rss_bytes"], processes["measured"]["rss_bytes"])]
    if summary["faults"] == HARDWARE:
        rows += [(f"of that the pagers, {kind.upper()}", *(each[f"pagers_{kind}_bytes"] for each in processes.values()))
                 for kind in ("rss", "uss")]
    scheme = summary["scheme"]
    table = plain_table("memory, MiB", "baseline mean", "peak", f"{scheme} mean", "peak", "less by", title="memory")
    for name, before, after in rows:
        table.add_row(name, mib(before["mean"]), mib(before["peak"]), mib(after["mean"]), mib(after["peak"]),
                      percent(less(before["mean"], after["mean"])))
    return table


def _work(summary: Mapping[str, Any]) -> Table:
    """Two halves side by side, so that it fits on a screen."""
    rows = [(said, number(summary["baseline"]["counters"].get(name, 0)), number(summary["counters"].get(name, 0)))
            for name, said in work_rows(summary)]
    half = (len(rows) + 1) // 2
    scheme = summary["scheme"]
    table = plain_table("pages", "baseline", scheme, " ", "baseline", scheme, title="reads, writes and calls")
    table.columns[3].justify = "left"
    for left, right in zip_longest(rows[:half], rows[half:], fillvalue=("", "", "")):
        table.add_row(*left, *right)
    return table


def _lines(summary: Mapping[str, Any]) -> list[Text]:
    arena, audit = summary["arena"], summary["audit"]
    return [
        *([Text(tmem_line(summary["tmem"]))] if SCHEMES[summary["scheme"]].tmem else []),
        *([Text(balloon_line(summary))] if SCHEMES[summary["scheme"]].balloon else []),
        *([Text(disk_line(summary))] if summary["disk"]["latency"] != "none" else []),
        Text("waits:   " + (_waits(summary["guests"]) or "none counted") + _unseen_waits(summary)),
        Text(f"audit:   {audit['checks']} checks, ledger and kernel at most {audit['max_drift_frames']} frames apart"),
        Text(f"peak:    {number(arena['peak_frames'])} of {number(arena['budget_frames'])} frames, "
             f"by the kernel's count {format_size(arena['kernel_peak_bytes'])}"),
        verdict(summary)]


def tmem_line(tmem: Mapping[str, Any]) -> str:
    """Return what tmem spared and cost, and how its pages lay."""
    cpu = DASH if tmem["hypervisor_cpu_s"] is None else f"{tmem['hypervisor_cpu_s']:.2f} s"
    parts = [f"reads avoided {percent(tmem['reads_avoided_percent'])}", f"{number(tmem['hypercalls'])} hypercalls",
             f"CPU in the hypervisor {cpu}", *(form_words(kind, held) for kind, held in tmem["forms"].items())]
    refused = [f"refused: {refusal_words(tmem['refusals'])}"] if tmem["refusals"] else []
    return "tmem:    " + "; ".join(parts + refused)


def balloon_line(summary: Mapping[str, Any]) -> str:
    """Return who steered the balloons, and what was in them when the work was over."""
    rules, held = summary["policy"]["balloon"], summary["counters"].get("balloon_pages", 0)
    steered = "" if rules["controller"] == "self" else (
        f", {format_size(rules['step'])} at most every {rules['interval']:g} s")
    tax = f", tax {rules['tax']:g}" if rules["controller"] == "shares" else ""
    return f"balloon: {rules['controller']}{steered}{tax}; {number(held)} pages in balloons at the end"


def form_words(kind: str, figures: Mapping[str, Any]) -> str:
    """Return one form's figures as words: "lz4 300 pages in 100 frames (3.00 a frame)"."""
    if not figures["frames"]:
        return f"{kind} {number(figures['pages'])} pages"
    return (f"{kind} {number(figures['pages'])} pages in {number(figures['frames'])} frames "
            f"({ratio(figures['pages_a_frame'])} a frame)")


def refusal_words(refusals: Mapping[str, int]) -> str:
    return ", ".join(f"{reason.replace('_', ' ')} {number(count)}" for reason, count in refusals.items())


def _waits(guests: list[dict[str, Any]]) -> str:
    """Return the seconds that all guests waited, by cause, the worst guest named."""
    causes = sorted({cause for guest in guests for cause in guest["waits_s"]})
    parts = []
    for cause in causes:
        waited = {guest["name"]: guest["waits_s"].get(cause, 0.0) for guest in guests}
        worst = max(waited, key=waited.__getitem__)
        if waited[worst]:
            parts.append(f"{cause} {sum(waited.values()):.2f} s ({worst} {waited[worst]:.2f})")
    return "; ".join(parts)


def _unseen_waits(summary: Mapping[str, Any]) -> str:
    """Say which waits nobody counts: a thread that stands in the kernel keeps no time."""
    return "; without hardware faults" if summary["faults"] == HARDWARE else ""


def verdict(summary: Mapping[str, Any], label: str = "verdict") -> Text:
    guests = summary["guests"]
    first, *more = summary["problems"] or [""]
    if first:
        others = f" (and {len(more)} more, on standard error)" if more else ""
        return Text(f"{label}: FAILED: {first}{others}", style="bold red")
    verified = sum(guest["pages_verified"] for guest in guests)
    rss = summary["rss"]
    slowest = max((guest["slowdown"] or 0.0 for guest in guests), default=0.0)
    gain = "saving not measured"
    if rss["saved_by"]:
        gain = f"saved {percent(rss['saved_percent'])} ({format_size(rss['saved_bytes'])}, {rss['saved_by']})"
    return Text(f"{label}: {number(verified)} pages verified, none wrong; {gain}; slow-down up to {ratio(slowest)}",
                style="bold green")


def number(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def mib(value: float | None) -> str:
    return DASH if value is None else f"{value / MIB:,.1f}"


def ratio(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f} %"


def less(before: float | None, after: float | None) -> float | None:
    return 100.0 * (before - after) / before if before and after is not None else None
