"""What pools do to other guests: E18, E33."""

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial

MIB = 1 << 20
HOST = 8 * MIB
ARRIVALS: dict[str, dict[str, Any]] = {          # what fills the host, and on which host
    "preswap": {"scheme": "tmem"},
    "preswap, written back": {"scheme": "tmem", "write_back": True, "swap": 2 * HOST},
    "precache": {"scheme": "tmem"},
    "volatile": {"scheme": "cmm2"},
}
CHANNELS: dict[str, dict[str, Any]] = {          # what a prober asks, and on which host
    "shared pool": {"scheme": "tmem", "budget": HOST},
    "private pools": {"scheme": "tmem", "budget": HOST},
    "dedup": {"scheme": "tmem", "budget": HOST, "dedup_across": True},
    "own pages": {"scheme": "cmm2", "budget": 288 << 12},
}
TELLS, SILENT = 0.5, 0.05                        # bits a probe: enough to read a secret by, and nothing to speak of


# E18

def newcomer_jobs(_size: Size) -> Mapping[str, Job]:
    jobs: dict[str, Job] = {
        name: Trial("newcomer", order | {"budget": HOST},
                    {"what": name.partition(",")[0], "guests": 2, "pages": 512, "max_mem": 2048,
                     "ram": 1024 if name == "volatile" else 128})
        for name, order in ARRIVALS.items()}
    return jobs | {"classes": Trial("newcomer", {"scheme": "cmm2+tmem", "budget": HOST},
                                    {"what": "classes", "pages": 128})}


def newcomer(results: Results) -> Answer:
    found = {name: results[name].value for name in ARRIVALS}
    freed = results["classes"].value
    full = found["preswap"]
    starved = full["had"] < full["pages"]
    others = [name for name, each in found.items() if name != "preswap" and each["had"] == each["pages"]]
    said = ", ".join(f"{name} {each['had']}" for name, each in found.items())
    classes = ", ".join(f"{name} {count}" for name, count in freed["freed"].items())
    return Answer(
        ruled(starved, not starved),
        f"of {full['pages']} pages a new guest had, when old ones had filled the host: {said}; of {freed['pages']} "
        f"frames the host can free at once: {classes}",
        f"{full['stored']:,} persistent pages of {full['allowed']:,} that max_mem allowed; when the old guests let "
        f"half of them go it had {full['had_then']}; it starts where the host was filled by "
        f"{', '.join(others) or 'nothing'}; max_mem of the two is twice the host here: where the sum of all max_mem is "
        f"no more than the host has, nothing of this can be")


# E33

def probe_jobs(size: Size) -> Mapping[str, Job]:
    probes = 400 if size.quick else 800
    return {name: Trial("probing", order, {"channel": name, "probes": probes}) for name, order in CHANNELS.items()}


def told(bits: Sequence[int], seen: Sequence[int]) -> float:
    """Return the bits of a secret that one look at `seen` (0 or 1) tells: their mutual information."""
    count, information = len(bits), 0.0
    for bit in (0, 1):
        for look in (0, 1):
            both = sum(1 for pair in zip(bits, seen, strict=True) if pair == (bit, look)) / count
            alone = (sum(1 for each in bits if each == bit) / count) * (sum(1 for each in seen if each == look) / count)
            information += both * log2(both / alone) if both else 0.0
    return information


def told_by_time(bits: Sequence[int], times: Sequence[int]) -> float:
    """Return the bits that times tell, split where the first half says best, judged by the second half."""
    half = len(bits) // 2
    cuts = sorted(set(times[:half]))[::max(1, half // 64)] or [0]
    cut = max(cuts, key=lambda cut: told(bits[:half], [int(took >= cut) for took in times[:half]]))
    return told(bits[half:], [int(took >= cut) for took in times[half:]])


def leak(results: Results) -> Answer:
    found = {name: results[name].value for name in CHANNELS}
    answers = {name: told(each["bits"], each["answers"]) for name, each in found.items()}
    times = {name: told_by_time(each["bits"], each["ns"]) for name, each in found.items()}
    bare = {name: told_by_time(each["bits"], each["own_ns"]) for name, each in found.items()}
    said = ", ".join(f"{name} {answers[name]:.2f} / {times[name]:.2f} / {bare[name]:.2f}" for name in CHANNELS)
    shared, private = times["shared pool"], times["private pools"]
    louder = [name for name in CHANNELS if name != "shared pool" and times[name] > SILENT]
    return Answer(
        ruled(shared >= TELLS and private <= SILENT, shared < SILENT),
        f"bits that a probe tells of another guest, by its answer / by its time / by its time without the disk that "
        f"the model adds: {said}; {len(found['dedup']['bits'])} probes each",
        f"a pool's answer is seen by a guest's kernel, its time by any program there; by time these tell more than "
        f"{SILENT} bits, too: {', '.join(louder) or 'none'} (one's own volatile pages: of the memory that others "
        f"take); guests that knew a pool's name, had no leave, and got in: {found['shared pool']['intruders']} of 1, "
        f"since leave must be given here; Xen's default of 2009 asked for none",
        on="the pool: private ones tell as well")


CLAIMS = (
    Claim("E18", "Rik van Riel, 7 Jul 2009; Dan Magenheimer", "4A5385AD, 92d23660",
          "preswap of a few guests may eat all free memory: a new guest cannot start",
          "two guests fill a host of 8 MiB, with persistent pages, with such that the host may write back, with "
          "ephemeral ones, with volatile ones; then a guest of 2 MiB comes and stores to all its pages",
          "supported if it has not all its pages where persistent ones fill the host, refuted if it has",
          newcomer_jobs, newcomer),
    Claim("E33", "Jeremy Fitzhardinge, Jul 2009", "-",
          "a shared pool lets a guest find out, by how long a read takes, what another has read",
          "a secret bit a probe decides whether another guest touches a page; what the prober sees is held against it: "
          "shared and private pools (what is not there is read from a disk, by the model hdd), pages that are "
          "deduplicated across guests, volatile pages of its own",
          f"supported if the time of a probe of a shared pool tells {TELLS} bits or more, and of private ones at most "
          f"{SILENT}; refuted if it tells less than {SILENT}", probe_jobs, leak),
)
