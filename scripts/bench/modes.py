"""The same scenario with software faults and with hardware faults, side by side: what each costs and what each sees.

    .venv/bin/python scripts/bench/modes.py [SCENARIO.toml] [options of `memcommons run`]

Each mode has a baseline of its own, so a slow-down is that of the scheme in this mode.  The last column is hardware's
figure in software's.  Work is timed (seconds) unless --ops is given, so counts are of different amounts of work: give
--ops for equal work.  Exit status: 0 all verified in both modes, else the first that was not.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from hypervisor.toolstack.comparison import known_slowdowns, mean_slowdown
from hypervisor.toolstack.table import console_for, mib, number, percent, plain_table, ratio, work_rows

MODES = ("software", "hardware")
RUN = (sys.executable, "-m", "hypervisor.toolstack.cli", "run", "--json", "--quiet")

Summary = dict[str, Any]
Figure = Callable[[Summary], float | None]
Shown = Callable[[float | None], str]

COSTS: tuple[tuple[str, Figure, Shown], ...] = (
    ("baseline, operations a second", lambda s: _speed(s["baseline"]["guests"].values()), number),
    ("measured, operations a second", lambda s: _speed(s["guests"]), number),
    ("seconds, baseline", lambda s: s["baseline"]["duration_s"], ratio),
    ("seconds, measured", lambda s: s["duration_s"], ratio),
    ("slow-down, geometric mean", mean_slowdown, ratio),
    ("slow-down, worst guest", lambda s: max(known_slowdowns(s), default=None), ratio),
    ("CPU in the hypervisor, s", lambda s: s["tmem"]["hypervisor_cpu_s"], ratio),
    ("saved, psutil's claim", lambda s: s["rss"]["saved_percent_by_source"]["psutil"], percent),
    ("saved, the kernel's claim", lambda s: s["rss"]["saved_percent_by_source"]["kernel"], percent),
    ("whole processes, PSS, MiB", lambda s: s["processes"]["measured"]["pss_bytes"]["mean"], mib),
    ("of that the pagers, USS, MiB", lambda s: s["processes"]["measured"]["pagers_uss_bytes"]["mean"], mib),
    ("pages verified", lambda s: sum(guest["pages_verified"] for guest in s["guests"]), number),
    ("pages wrong", lambda s: sum(guest["mismatches"] for guest in s["guests"]), number))


def _speed(guests: Any) -> float:
    return sum(guest["operations"] / guest["seconds"] for guest in guests if guest["seconds"])


def run(mode: str, words: Sequence[str]) -> tuple[int, Summary | None]:
    """Run the scenario in one mode; return its exit status, and its summary if it came to one."""
    done = subprocess.run([*RUN, "--faults", mode, *words], stdout=subprocess.PIPE, text=True, check=False)
    document = json.loads(done.stdout) if done.stdout else {}
    return done.returncode, document if "guests" in document else None


def table(summaries: Sequence[Summary]) -> Any:
    """Return the two columns, and their ratio."""
    made = plain_table("", *MODES, "ratio", title=f"{summaries[0]['name']}: scheme {summaries[0]['scheme']}")
    for name, figure, shown in COSTS:
        _add(made, name, [figure(summary) for summary in summaries], shown)
    made.add_section()
    for key, said in work_rows(summaries[1]):
        _add(made, said, [summary["counters"].get(key, 0) for summary in summaries], number)
    return made


def _add(made: Any, name: str, figures: Sequence[float | None], shown: Shown) -> None:
    before, after = figures
    made.add_row(name, shown(before), shown(after), ratio(after / before if before and after is not None else None))


def main(words: Sequence[str]) -> int:
    """Run both modes in turn and print the table."""
    statuses, summaries = zip(*(run(mode, words) for mode in MODES), strict=True)
    if all(summaries):
        console_for(sys.stdout).print(table(summaries))
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
