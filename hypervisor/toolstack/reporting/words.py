"""What the page says to somebody who never heard of tmem: what is what, in a sentence each.  No figure is in here."""

from collections.abc import Mapping
from typing import Any

WHAT = (
    "Several guests (virtual machines, here programs that manage their memory as a kernel does) share one machine. "
    "Each was promised memory, together more than there is: memory is overcommitted. Most of what fills a guest's "
    "memory could be had again from elsewhere, but only the guest knows which pages those are. In July 2009 Linux and "
    "Xen developers argued over two ways to let the host know. memcommons runs both on real memory and measures them.")

SCHEMES = {
    "baseline": "All memory that was promised is there. What the other runs are compared with.",
    "none": "Each guest gets a smaller memory from the start, its share of the budget, and does with it what it can.",
    "more-ram": "The same, dealt out by the guests' weights: the memory that others give to a pool is simply given.",
    "swap": "The host takes pages that it knows nothing of, and writes each of them to its swap disk.",
    "balloon": "The host tells each guest how many pages to have, and a driver in the guest hands the rest over.",
    "light": "Guests tell the host which pages are unused, and no more: what mainline Linux kept of CMM2.",
    "tmem": "Transcendent memory (Xen, 2009): guests have less memory, and ask the host to keep copies of pages in a "
            "common pool. Ephemeral ones may be forgotten at any time; persistent ones are kept.",
    "swapcache": "A cache of the guests' disks at the host, in the place of tmem's pool; guests know nothing of it.",
    "cmm2": "Collaborative memory management (z/VM and Linux, 2006 to 2009): guests mark pages as unused or volatile, "
            "and the host takes those away without writing them anywhere. Who needs one again reads or computes it.",
    "cmm2+tmem": "Both at once: marks on the guests' pages, and a pool for copies.",
}

TERMS = (
    ("page, frame", "4096 bytes of a guest's memory; the real memory under it, if there is any just now."),
    ("budget", "How much real memory all guests together may have at any moment."),
    ("overcommit", "The memory promised to all guests, divided by the budget."),
    ("arena", "The real memory of all guests and of the tmem pool; not the programs' own code and tables."),
    ("baseline", "The same work with all promised memory granted. It fixes how many operations each guest has to do."),
    ("slow-down", "A guest's time for that work, divided by its time in the baseline."),
    ("stable page", "Its content is needed: whoever takes its frame must write it to a disk first."),
    ("volatile page", "Its content can be had again: its frame may be taken at any time (discarded)."),
    ("potentially volatile page", "Volatile as long as nobody has written to it."),
    ("unused page", "Its content is worth nothing."),
    ("ephemeral, persistent", "Of pages in the tmem pool: may be forgotten; must be kept."),
    ("psutil, PSS", "What the machine's process list says: each mapped page counted once. Pages that are given but "
                    "that nobody maps just now are not seen."),
    ("kernel's count", "What the machine really gave to the arena's files (st_blocks). It misses nothing."),
)

STATES = {"S": "stable: must be kept", "P": "potentially volatile: free to discard until written to",
          "V": "volatile: free to discard", "U": "unused: worth nothing", "other": "being filled"}
TMEM = {"persistent": "tmem, persistent: must be kept", "ephemeral": "tmem, ephemeral: may be forgotten",
        "spare": "tmem, kept free"}

FAULTS = {
    "software": "software: guests ask before they touch a page",
    "hardware": "hardware: guests just touch their memory, and the machine reports what is missing"}


def schemes_told(names: list[str]) -> list[tuple[str, str]]:
    return [(name, SCHEMES.get(name, "A scheme that this version does not know.")) for name in names]


def disk_told(disk: Mapping[str, Any]) -> str:
    """Return what the guests' disks cost: every time depends on it."""
    if disk.get("direct"):
        return "real disks, past the machine's page cache"
    latency, time = disk.get("latency", "none"), disk.get("time", "virtual")
    if latency == "none":
        return "no cost: disks are files in the machine's own cache, and times show what the schemes cost in software"
    return f"the model {latency!r}, in {time} time"
