"""Would a disk that the host caches do what tmem does?  E14 to E17."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.setups import grid
from hypervisor.toolstack.claims.thread.swapping import total

MIB = 1 << 20
COMPARED = ("tmem", "swapcache")
TRANSFERS = ("disk_reads", "disk_writes", "swap_reads", "swap_writes")
OPERATIONS = 2000                # of each common guest: behind the cached disk they are slow
RUN_TRANSFERS = ("guest_disk_reads", "guest_disk_writes", "guest_swap_reads", "guest_swap_writes")
OF_SWAP = "swap-"                # operations of anonymous memory begin so; the others are of files
ARMS = ("cache-shared", "cache-separate", "tmem-separate", "tmem-shared", "tmem-dedup")
IMAGES = 4                       # guests with one base image
ONCE = 1.05                      # frames for each different page, where each lies there once


# E14

def emulation_jobs(size: Size) -> Mapping[str, Job]:
    trials = {scheme: Trial("cached_disk", {"scheme": scheme, "budget": 12 * MIB}, {"pages": 128})
              for scheme in COMPARED}
    return {**trials, **grid("cached", COMPARED, (1.5,), size.seeds[:2], size, operations=OPERATIONS)}


def transfers(found: Mapping[str, Any]) -> dict[str, int]:
    return {row["operation"]: sum(row[name] for name in TRANSFERS) for row in found["rows"]}


def emulation(results: Results) -> Answer:
    trials = {scheme: results[scheme].value for scheme in COMPARED}
    pool, cache = transfers(trials["tmem"]), transfers(trials["swapcache"])
    more = [name for name in pool if cache[name] > pool[name]]
    of_swap = [name for name in more if name.startswith(OF_SWAP)]
    of_files = [name for name in more if name not in of_swap]
    doubled = {scheme: found["doubled"] for scheme, found in trials.items()}
    said = ", ".join(f"{name} {pool[name]} / {cache[name]}" for name in pool)
    twice = doubled["swapcache"]["twice"] > doubled["tmem"]["twice"]
    return Answer(
        ruled(not more and twice, bool(of_swap) and (bool(of_files) or not twice)),
        f"disk transfers by operation, tmem / cached disk: {said}; pages of files held twice: "
        f"{doubled['tmem']['twice']} of {doubled['tmem']['cached']} / {doubled['swapcache']['twice']} of "
        f"{doubled['swapcache']['cached']}; {on_common_guests(results)}",
        f"files: {'more transfers' if of_files else 'as he said, no more transfers'}, and pages are "
        f"{'held twice' if twice else 'not held twice'}; swap: "
        + ("not as he said, more transfers: a cached disk that writes through writes each page that is swapped out, "
           "whatever the cache holds" if of_swap else "as he said, no more transfers"),
        on="which half of it: files or swap")


def on_common_guests(results: Results) -> str:
    """Say what the common guests' transfers were, by the seeds with which both runs came to an end."""
    done = {label: found for label, found in results.items() if "/" in label and not found.failed and found.body}
    pairs = {label: found for label, found in done.items() if both(label) <= done.keys()}
    if not pairs:
        return "the common guests did not finish under both"
    return (f"the common guests, files / swap: {times(pairs, RUN_TRANSFERS[:2])} / {times(pairs, RUN_TRANSFERS[2:])} "
            f"times tmem's transfers, {len(pairs)} runs")


def times(runs: Results, counters: Sequence[str]) -> str:
    """Return the transfers behind the cached disk relative to tmem's."""
    tmem, cached = (sum(total(runs, name, scheme) for name in counters) for scheme in COMPARED)
    return f"{cached / tmem:.2f}" if tmem else f"({cached:,} against none)"


def both(label: str) -> set[str]:
    """Return the labels of a run and of its counterpart."""
    return {"/".join([scheme, *label.split("/")[1:]]) for scheme in COMPARED}


# E15

def shrink_jobs(_size: Size) -> Mapping[str, Job]:
    orders: dict[str, dict[str, Any]] = {
        "tmem": {"scheme": "tmem"}, "persistent": {"scheme": "tmem"}, "through": {"scheme": "swapcache"},
        "back": {"scheme": "tmem", "write_back": True, "swap": 24 * MIB}}
    return {arm: Trial("shrinking", order | {"budget": 12 * MIB}, {"arm": arm, "pages": 1024})
            for arm, order in orders.items()}


def shrinking(results: Results) -> Answer:
    found = {arm: results[arm].value for arm in ("tmem", "persistent", "through", "back")}
    by_shrinking = {arm: each["written_by_shrinking"] for arm, each in found.items()}
    tmem = by_shrinking["tmem"] + by_shrinking["persistent"]
    wrong = sum(each["wrong"] for each in found.values())
    pages = found["tmem"]["pages"]
    no = {arm: pages - each["stored_again"] for arm, each in found.items()}
    return Answer(
        ruled(not tmem and by_shrinking["back"] > 0 and not wrong, tmem > 0 or not by_shrinking["back"]),
        f"pages written to disks when the host took three quarters of {pages:,} cached pages: tmem {tmem}, "
        f"write-through {by_shrinking['through']} (and {found['through']['written_before']:,} before), write-back "
        f"{by_shrinking['back']:,}; \"may I store?\" was then answered no to {no['tmem']:,} of {pages:,} "
        f"(ephemeral), {no['persistent']:,} (persistent), {no['through']} and {no['back']}",
        f"of persistent pages tmem gives none back, so that the host had {found['persistent']['returned_frames']} "
        f"frames of the {found['tmem']['returned_frames']} that it asked for; of {2 * pages:,} pages offered to the "
        f"ephemeral pool {found['tmem']['found']:,} were found afterwards, all others are to be read from where they "
        f"came; the {no['persistent']:,} persistent pages that were refused a guest writes to its own swap disk",
        on="luck: a page was wrong")


# E16

def dead_jobs(_size: Size) -> Mapping[str, Job]:
    def trial(scheme: str, trim: bool) -> Trial:
        return Trial("dead_blocks", {"scheme": scheme, "budget": 5 * MIB}, {"rounds": 4, "trim": trim})
    return {"cache": trial("swapcache", trim=False), "trimmed": trial("swapcache", trim=True),
            "tmem": trial("tmem", trim=False)}


def dead(results: Results) -> Answer:
    found = {arm: results[arm].value for arm in ("cache", "trimmed", "tmem")}
    frames = {arm: each["dead"] for arm, each in found.items()}
    lost = {arm: each["live_reads"] for arm, each in found.items()}
    held = found["cache"]["frames"]
    return Answer(
        ruled(frames["cache"] > 0 and not frames["trimmed"] and not frames["tmem"], not frames["cache"]),
        f"dead blocks in the host's frames after files were cut and processes ended: without trim {frames['cache']:,} "
        f"of {held:,} ({100 * frames['cache'] / max(1, held):.0f} %), with trim {frames['trimmed']}, tmem "
        f"{frames['tmem']}",
        f"of {found['cache']['live_pages']} pages of a file that lives, {lost['cache']}, {lost['trimmed']} and "
        f"{lost['tmem']} were then read from the disk", on="trim, or tmem, which held dead blocks as well")


# E17

def image_jobs(_size: Size) -> Mapping[str, Job]:
    def trial(arm: str) -> Trial:
        order: dict[str, Any] = {"scheme": "swapcache" if arm.startswith("cache") else "tmem", "budget": 12 * MIB}
        order |= {"dedup_across": True} if arm == "tmem-dedup" else {}
        return Trial("base_images", order, {"arm": arm, "guests": IMAGES})
    return {arm: trial(arm) for arm in ARMS}


def images(results: Results) -> Answer:
    found = {arm: results[arm].value for arm in ARMS}
    each = {arm: value["frames"] / max(1, value["different"]) for arm, value in found.items()}
    shared, separate = each["cache-shared"] <= ONCE, each["cache-separate"] > ONCE
    also = [arm for arm in ("tmem-shared", "tmem-dedup") if each[arm] <= ONCE]
    said = ", ".join(f"{arm} {value:.2f}" for arm, value in each.items())
    return Answer(
        ruled(shared and separate, not shared),
        f"frames in the host for each different page, {IMAGES} guests with one base image: {said}",
        f"tmem can do it as well: {', '.join(also)}; dedup with separate images too" if also else
        "tmem holds them more than once in every way", on="the images: separate ones were held once as well")


CLAIMS = (
    Claim("E14", "Avi Kivity, 12 and 13 Jul 2009", "4A5A1A51, 4A5B1B9F",
          "a virtual disk with a cache that writes through does what precache and preswap do: swap a bit better, the "
          "page cache a bit worse, since pages are cached twice",
          "operations one by one, on one guest, over tmem and behind a cached disk with as many frames; the common "
          "guests, a quarter of their work, at overcommit 1.5",
          "supported if behind the cached disk no operation takes more disk transfers, and more pages are held twice; "
          "refuted if operations on swap take more, and those on files do, or pages are not held twice",
          emulation_jobs, emulation),
    Claim("E15", "Dan Magenheimer, Jul 2009", "d05df0b0",
          "\"may I store?\", answered yes or no as it comes, is the key: a disk cache must always say yes, and persist",
          "a cache of 1,024 pages loses three quarters in mid-run: an ephemeral pool, a persistent one, a cached disk "
          "that writes through, and one that writes back (a persistent pool that the host may write to its own disk)",
          "supported if shrinking writes nothing under tmem, and something behind a cache that writes back; refuted if "
          "it writes under tmem, or nothing behind that cache", shrink_jobs, shrinking),
    Claim("E16", "Chris Mason, 13 Jul 2009", "20090713210112",
          "without trim the host caches dead blocks",
          "four temporary files are written and cut, a process that needs more memory than there is ends; then each "
          "dead block is asked for; with and without trim, and under tmem",
          "supported if the host's cache holds dead blocks without trim, and none with it, nor tmem; refuted if none "
          "without", dead_jobs, dead),
    Claim("E17", "Anthony Liguori, against Chris Mason, 13 Jul 2009", "4A5B9B55",
          "a cache of the host's shares copy-on-write base images, which separate images cannot",
          f"{IMAGES} guests read one base image and a little of their own, behind a cache that knows the image to be "
          f"one, behind a cache with separate images, and under tmem: separate, in a shared pool, deduplicated",
          f"supported if each different page takes one frame (at most {ONCE}) behind the shared image, and more with "
          f"separate ones; refuted if more behind the shared image", image_jobs, images),
)
