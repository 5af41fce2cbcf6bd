"""What copies and calls cost: E3, E4, E20, E29, E30."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Curves, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.setups import grid
from hypervisor.toolstack.claims.thread.swapping import total
from shm.diskcost import MODELS

MIB = 1 << 20
LIMIT_S = 400.0                  # of a trial that makes thousands of calls, on a machine that does much else
LOSING = ("cmm2", "tmem")        # schemes by which pages are lost (E4)
NEGLIGIBLE = 0.1                 # % of a load's CPU time (E3; the threshold of reference 5: Dan said 0.01 %)
EVERY = (1000, 100, 10, 1)       # pages served for each that leaves
FEW = 1.0                        # % of frames (E20); ours
GETS = {"default": "as they are by default (cleancache's gets take the page out, frontswap's leave it)",
        "exclusive": "gets that take it out", "kept": "gets that leave it"}
NOISE = 5.0                      # % of the disk's time (E29); ours
RATES = (0.0, 0.1, 0.5, 1.0)     # of entries dropped (E30)


# E3

def copy_jobs(size: Size) -> Mapping[str, Job]:
    return {"copying": Trial("copying", {"scheme": "tmem", "budget": 32 * MIB},
                             {"every": list(EVERY), "cold": 20 if size.quick else 60}, LIMIT_S)}


def shares(found: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Return for each load, by how many pages are served for one that leaves, what copies add to its CPU time in %."""
    alone = {row["load"]: row["cpu_ns"] / row["served"] for row in found["rows"] if not row["every"]}
    out: dict[str, dict[int, float]] = {load: {} for load in alone}
    for row in found["rows"]:
        if row["every"]:
            copied = row["copied"] / row["served"] * found["copy_ns"]
            out[row["load"]][row["every"]] = 100 * copied / (alone[row["load"]] + copied)
    return out


def copying(results: Results) -> Answer:
    found = results["copying"].value
    by_load = shares(found)
    least, most = max(EVERY), min(EVERY)
    low = [by_every[least] for by_every in by_load.values()]
    said = "; ".join(f"{load} {by_every[least]:.3f} to {by_every[most]:.0f} %" for load, by_every in by_load.items())
    pages = {row["every"]: row["copied"] / row["served"] for row in found["rows"] if row["load"] == "read"}
    fastest = 100 * pages[least] / (1 + pages[least])        # of a load that takes a page as long as a copy of it
    turns_us = pages[least] * found["copy_ns"] * (100 / NEGLIGIBLE - 1) / 1000
    return Answer(
        ruled(max(*low, fastest) <= NEGLIGIBLE, by_load["read"][least] > NEGLIGIBLE),
        f"copies in a load's CPU time where 1 page in {least:,} leaves to where each does: {said}; "
        f"{pages[least]:.3f} to {pages[most]:.1f} pages copied for one served; a copy takes {found['copy_ns']:.0f} ns",
        f"where 1 in {least:,} leaves, copies are {NEGLIGIBLE} % of a load that takes {turns_us:.2f} us a page, and "
        f"{fastest:.2f} % of one that takes no longer than a copy; these take {load_us(found)}; a put and its get are "
        f"repaid by an ssd if {100 * break_even(found['copy_ns'], 'ssd'):.1f} % of puts are got back, by an hdd if "
        f"{100 * break_even(found['copy_ns'], 'hdd'):.2f} %, calls left out", copy_curves(by_load),
        on="how long a load takes for a page, and how often pages leave")


def load_us(found: Mapping[str, Any]) -> str:
    """Return how long each load takes for a page when none leaves."""
    return ", ".join(f"{row['load']} {row['cpu_ns'] / row['served'] / 1000:.1f} us" for row in found["rows"]
                     if not row["every"])


def break_even(copy_ns: float, disk: str) -> float:
    """Return the share of puts that must be got back, so that copies cost no more than the disk reads they spare."""
    read = MODELS[disk].alone_ns(1, 1)
    return 2 * copy_ns / (read - 2 * copy_ns)


def copy_curves(by_load: Mapping[str, Mapping[int, float]]) -> Curves:
    lines = [{"name": load, "points": [[100 / every, share, None] for every, share in by_every.items()]}
             for load, by_every in by_load.items()]
    return ({"title": "E3: copies in a load's CPU time", "x": "pages that leave for each served, %", "y": "%",
             "lines": lines},)


# E4

def failure_jobs(size: Size) -> Mapping[str, Job]:
    def handling(scheme: str) -> Trial:
        return Trial("handling", {"scheme": scheme, "budget": 4 * MIB},
                     {"operations": size.operations(8000), "every": 100}, LIMIT_S)
    return {**{scheme: handling(scheme) for scheme in LOSING}, **grid("common", LOSING, (2.0,), size.seeds[:3], size)}


def failure(results: Results) -> Answer:
    found = {scheme: results[scheme].value for scheme in LOSING}
    traps = {scheme: each["trapped"] for scheme, each in found.items()}
    told, missed, places = found["cmm2"]["told"], found["tmem"]["missed"], found["cmm2"]["places"]
    return Answer(
        ruled(not traps["tmem"] and missed > 0 and traps["cmm2"] > 0, traps["tmem"] > 0 or not traps["cmm2"]),
        f"traps: tmem {traps['tmem']}, cmm2 {traps['cmm2']:,}; told inline: tmem {missed:,} misses, cmm2 {told:,}; "
        f"{on_common_guests(results)}",
        f"a guest of tmem's has nothing that could trap; {share(told, told + traps['cmm2'])} of cmm2's failures are "
        f"told inline too, where a page is made stable; places in the guest's kernel that must expect one: cmm2 "
        f"{places['traps']} for traps and "
        f"{places['asked_before']} that make pages stable, tmem {places['misses']} gets and {places['refusals']} puts",
        on="the guests: no get missed")


def on_common_guests(results: Results) -> str:
    """Say what the common guests met, by the runs that came to an end."""
    done = {label: found for label, found in results.items() if "/" in label and not found.failed and found.body}
    said = [f"{scheme} {total(done, 'discard_faults', scheme):,} traps, p99 {slowest(done, scheme):.1f} ms"
            if any(label.startswith(f"{scheme}/") for label in done) else f"{scheme} did not finish"
            for scheme in LOSING]
    return f"the common guests: {'; '.join(said)}; {len(done)} runs"


def slowest(runs: Results, scheme: str) -> float:
    """Return the longest p99 of an operation under a scheme, in ms."""
    return max(found.value["latency_ns"]["p99"] for label, found in runs.items()
               if label.startswith(f"{scheme}/")) / 1e6


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "none"


# E20

def duplicate_jobs(size: Size) -> Mapping[str, Job]:
    return {"duplicates": Trial("duplicates", {"scheme": "tmem", "budget": 16 * MIB},
                                {"operations": size.operations(1200), "points": 6, "cap": 384}, LIMIT_S)}


def doubles(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return how many % of the frames in use hold what another does, over all moments that were looked at."""
    twice = sum(row["file_doubles"] + row["anonymous_doubles"] for row in rows)
    return 100 * twice / sum(row["frames"] for row in rows)


def duplicates(results: Results) -> Answer:
    found = results["duplicates"].value
    percent = {arm: doubles(rows) for arm, rows in found.items()}
    reads = {arm: rows[-1]["disk_reads"] + rows[-1]["swap_reads"] for arm, rows in found.items()}
    arms = ", ".join(f"{name} {percent[arm]:.1f} % and {reads[arm]:,}" for arm, name in GETS.items())
    return Answer(
        ruled(percent["default"] <= FEW, percent["exclusive"] > FEW),
        f"frames that hold what another does, of all in use, and disk reads: {arms}",
        f"reads of the default {reads['default'] / max(1, reads['exclusive']):.2f} times those of exclusive gets; "
        f"looked at {len(found['kept'])} times", on="whether a get takes the page out")


# E29

def call_jobs(size: Size) -> Mapping[str, Job]:
    return {"calls": Trial("swap_calls", {"scheme": "tmem", "budget": 16 * MIB},
                           {"calls": size.operations(2000), "operations": size.operations(4000),
                            "disks": ["hdd", "ssd"]}, LIMIT_S)}


def calls(results: Results) -> Answer:
    found = results["calls"].value
    worst = {disk: 100 * found["worst"]["put_ns"] / MODELS[disk].alone_ns(1, 1) for disk in ("hdd", "ssd")}
    short = {disk: NOISE / 100 * MODELS[disk].alone_ns(1, 1) / 1000 for disk in worst}
    swapping = {disk: found["swapping"][f"{disk}/frozen"] for disk in ("hdd", "ssd")}
    real = {disk: 100 * each["call_ns"] / each["disk_ns"] for disk, each in swapping.items()}
    batch = swapping["ssd"]["pages"] / max(1, swapping["ssd"]["calls"])
    larger = {disk: max(worst[disk], real[disk]) for disk in worst}
    return Answer(
        ruled(max(larger.values()) <= NOISE, min(larger.values()) > NOISE),
        f"a refused put, one page a call, takes {found['worst']['put_ns'] / 1000:.0f} us: of the disk's time for that "
        f"page {worst['hdd']:.1f} % (hdd), {worst['ssd']:.0f} % (ssd); a program that swaps while all is refused: "
        f"{real['hdd']:.1f} % and {real['ssd']:.0f} %, {batch:.1f} pages a call",
        f"a call here is a message between two processes, and takes {found['worst']['ping_ns'] / 1000:.0f} us when "
        f"nothing is done; one page a call it is noise below {short['ssd']:.0f} us with an ssd, below "
        f"{short['hdd']:.0f} us with an hdd", on="what a call costs, and on the disk")


# E30

def drop_jobs(size: Size) -> Mapping[str, Job]:
    return {"dropping": Trial("dropping", {"scheme": "tmem", "budget": 8 * MIB},
                              {"rates": list(RATES), "operations": size.operations(8000)}, LIMIT_S)}


def dropping(results: Results) -> Answer:
    rows = results["dropping"].value["rows"]
    wrong, dropped = (sum(row[name] for row in rows) for name in ("wrong", "dropped"))
    first = rows[0]
    said = ", ".join(f"{100 * row['rate']:.0f} %: {row['disk_reads'] / max(1, first['disk_reads']):.1f} x reads, "
                     f"{row['clock_ns'] / first['clock_ns']:.1f} x time" for row in rows[1:])
    lines = [{"name": "disk reads", "points": [[100 * row["rate"], row["disk_reads"], None] for row in rows]}]
    return Answer(
        ruled(not wrong and dropped > 0, wrong > 0),
        f"{wrong} wrong pages among {sum(row['operations'] for row in rows):,} read or written, {dropped:,} entries "
        f"dropped; against none dropped, {said}", "",
        ({"title": "E30: disk reads against entries dropped", "x": "entries dropped, %", "y": "disk reads",
          "lines": lines},), on="luck: nothing was dropped")


CLAIMS = (
    Claim("E3", "Dan Magenheimer, against Anthony Liguori; Jeremy Fitzhardinge, Jul 2009", "4A553272, 4A553707",
          "copying is negligible, some 0.01 % of CPU time, since only cold pages go; it hurts loads without copies",
          "one guest serves pages of a file that fits; 1 in 1,000, in 100, in 10 or each is one that does not; a load "
          "that reads each byte, and one that looks at one byte of a page, as sendfile does",
          f"where 1 in 1,000 leaves: supported if copies take at most {NEGLIGIBLE} % of the CPU time of either load, "
          f"and of one that is as fast as a copy; refuted if more of the one that reads each byte", copy_jobs, copying),
    Claim("E4", "Dan Magenheimer, Jul 2009", "7cb22078",
          "with tmem failure is told inline, as a get that misses, and not by a trap",
          "one guest reads a file larger than its memory while the host takes all it may have every 100 operations; "
          "places that handle failure, counted in the source of the guest's kernel; the common guests at overcommit 2",
          "supported if under tmem pages are missed and nobody traps, and under cmm2 guests trap; refuted if one traps "
          "under tmem, or none under cmm2", failure_jobs, failure),
    Claim("E20", "Dan Magenheimer, against Chris Friesen, Jun and Jul 2009", "90774647, 4A3F95A6",
          "pages that are both in the guest and in the pool are few, and do not hurt programs at the border of memory",
          "one guest with a file and anonymous memory larger than its RAM, and a pool that holds part of it, at six "
          "lengths of the work; gets as they are by default, all that take the page out, all that leave it",
          f"supported if at most {FEW:g} % of frames in use hold what another does, as gets are by default; refuted "
          f"if more even where every get takes the page out", duplicate_jobs, duplicates),
    Claim("E29", "Dan Magenheimer; Pavel Machek, Jul 2009", "-",
          "one hypercall for each page that is swapped, in the worst case, is noise",
          "every put is refused: the page goes to the disk and the call was for nothing; disks by their models",
          f"supported if calls take at most {NOISE:g} % of the disk's time with an ssd and with an hdd, one page a "
          f"call and in a program that swaps; refuted if more with both", call_jobs, calls),
    Claim("E30", "Chris Mason, 13 Jul 2009", "20090713201745",
          "the hooks are simple: where it gets difficult, just invalidate",
          f"entries of a cleancache are dropped at random, {', '.join(f'{100 * rate:.0f}' for rate in RATES)} %; a "
          f"guest reads and writes a file three times its memory",
          "supported if no page is ever wrong, refuted if one is", drop_jobs, dropping),
)
