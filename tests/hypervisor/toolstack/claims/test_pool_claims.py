"""Claims about pools, copies, calls and host caches: the jobs that they plan, and what their judges make of results."""

import pytest

from hypervisor.toolstack.claims.book import CLAIMS
from hypervisor.toolstack.claims.claim import FULL, QUICK, Found, Verdict, judged
from hypervisor.toolstack.claims.jobs import Run, Trial, planned
from hypervisor.toolstack.claims.thread import copies, hostcache, pools, subset
from shm.diskcost import MODELS

MINE = ("E2", "E3", "E4", "E14", "E15", "E16", "E17", "E18", "E20", "E29", "E30", "E33")
SUPPORTED, REFUTED, DEPENDS, NOT_TESTED = Verdict


def answer(key, **bodies):
    """Judge a claim by the bodies of its jobs; `/` in labels is written `__`."""
    return judged(CLAIMS[key], {label.replace("__", "/"): Found(label, body, None if body else "it broke")
                                for label, body in bodies.items()})


@pytest.mark.parametrize("key", MINE)
@pytest.mark.parametrize("size", [QUICK, FULL], ids=["quick", "full"])
def test_jobs_are_data_and_the_same_each_time(key, size):
    jobs = CLAIMS[key].jobs(size)
    assert [job.key for job in jobs.values()] == [job.key for job in CLAIMS[key].jobs(size).values()]
    assert len({job.key for job in jobs.values()}) == len(jobs)
    for job in jobs.values():
        assert isinstance(job, Trial) or job.scenario.guests


def test_runs_are_shared_with_other_claims():
    wanted = {key: CLAIMS[key].jobs(FULL) for key in ("E4", "E10", "E14")}
    runs = [job for jobs in wanted.values() for job in jobs.values() if isinstance(job, Run)]
    assert len([job for job in planned(wanted) if isinstance(job, Run) and job.scheme != "baseline"]) < len(runs)


@pytest.mark.parametrize("key", MINE)
def test_a_claim_without_its_results_is_not_tested(key):
    jobs = CLAIMS[key].jobs(QUICK)
    found = judged(CLAIMS[key], {label: Found(job.said, None, "it broke") for label, job in jobs.items()})
    assert found.verdict is NOT_TESTED and "did not finish" in found.why


# E2

def sized(*cached):
    return {"guest_pages": 100, "sets": [{"multiple": at + 1, "pages": 100 * (at + 1), "hits": min(each, 100),
                                          "cached": each, "wrong": 0} for at, each in enumerate(cached)]}


def rules(*parted):
    return {"pool": {"groups": {subset.COSTS: [{"number": number, "same": number not in parted}
                                               for number in (*subset.ACCOUNTS, "E2e")]}}}


@pytest.mark.parametrize(("tmem", "cmm2", "parted", "verdict"), [
    ((100, 200), (90, 95), ("E2a", "E2e"), SUPPORTED), ((100, 100), (90, 95), ("E2a",), REFUTED),
    ((100, 200), (90, 120), ("E2a",), REFUTED), ((100, 200), (90, 95), (), DEPENDS)])
def test_a_pool_may_be_larger_than_its_guest(tmem, cmm2, parted, verdict):
    found = answer("E2", tmem=sized(*tmem), cmm2=sized(*cmm2), mappings=rules(*parted))
    assert found.verdict is verdict
    assert f"tmem {max(tmem)}" in found.figure and "E2e" not in found.why
    assert [line["name"] for line in found.curves[0]["lines"]] == ["cmm2", "tmem"]


# E3

def served(low, high, copy_ns=100.0):
    """So many pages copied for each served, where 1 in 1,000 leaves and where each does; 1,000 ns of work a page."""
    rows = [{"load": load, "every": every, "served": 1000, "cpu_ns": 1_000_000, "copied": copied}
            for load in ("read", "zero-copy") for every, copied in ((0, 0), (1000, 1000 * low), (100, 1000 * low),
                                                                    (10, 1000 * high), (1, 1000 * high))]
    return {"copy_ns": copy_ns, "rows": rows}


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (0.001, 4, SUPPORTED), (0.003, 4, DEPENDS), (0.1, 4, REFUTED)])
def test_copies_are_negligible_up_to_a_tenth_of_a_percent_where_few_pages_leave(low, high, verdict):
    """Between: of these loads, and not of one that takes no longer for a page than its copy."""
    assert answer("E3", copying=served(low, high)).verdict is verdict


def test_how_fast_a_load_may_be_for_copies_to_be_negligible():
    said = answer("E3", copying=served(0.003, 4))
    assert f"0.1 % of a load that takes {0.003 * 100 * 999 / 1000:.2f} us a page" in said.why
    assert "0.30 % of one that takes no longer than a copy; these take read 1.0 us, zero-copy 1.0 us" in said.why


def test_copies_are_held_against_the_work_without_them():
    shares = copies.shares(served(0.5, 10))
    assert shares["read"][1000] == pytest.approx(100 * 50 / 1050)
    assert shares["zero-copy"][1] == pytest.approx(100 * 1000 / 2000)


def test_a_put_is_repaid_by_the_reads_that_its_gets_spare():
    share, copy_ns = copies.break_even(1000.0, "ssd"), 1000.0
    assert share * (MODELS["ssd"].alone_ns(1, 1) - 2 * copy_ns) == pytest.approx(2 * copy_ns)


# E4

def run(**counters):
    return {"counters": counters, "latency_ns": {"p99": 2_000_000}}


PLACES = {"traps": 4, "asked_before": 9, "misses": 3, "refusals": 2}


def losing(trapped, told=0, missed=0):
    return {"trapped": trapped, "told": told, "missed": missed, "places": PLACES}


@pytest.mark.parametrize(("tmem_traps", "cmm2_traps", "missed", "verdict"), [
    (0, 5, 7, SUPPORTED), (1, 5, 7, REFUTED), (0, 0, 7, REFUTED), (0, 5, 0, DEPENDS)])
def test_failure_is_inline_where_nobody_traps(tmem_traps, cmm2_traps, missed, verdict):
    found = answer("E4", cmm2=losing(cmm2_traps, 15), tmem=losing(tmem_traps, 0, missed), cmm2__2__1=run(),
                   tmem__2__1=None)
    assert found.verdict is verdict
    assert "cmm2 0 traps, p99 2.0 ms; tmem did not finish; 1 runs" in found.figure and "4 for traps" in found.why


def test_runs_that_did_not_finish_leave_the_verdict_as_it_is():
    found = answer("E4", cmm2=losing(5), tmem=losing(0, 0, 3), cmm2__2__1=None, tmem__2__1=None)
    assert found.verdict is SUPPORTED and found.figure.endswith("cmm2 did not finish; tmem did not finish; 0 runs")


# E14

def operations(twice=0, **transfers):
    rows = [{"operation": name.replace("_", "-"), "disk_reads": count, "disk_writes": 0, "swap_reads": 0,
             "swap_writes": 0} for name, count in transfers.items()]
    return {"rows": rows, "doubled": {"twice": twice, "cached": 50}}


@pytest.mark.parametrize(("cache", "twice", "verdict"), [
    ({"read_back": 0, "swap_out": 0}, 30, SUPPORTED), ({"read_back": 0, "swap_out": 9}, 30, DEPENDS),
    ({"read_back": 9, "swap_out": 9}, 30, REFUTED), ({"read_back": 9, "swap_out": 0}, 30, DEPENDS),
    ({"read_back": 0, "swap_out": 9}, 0, REFUTED), ({"read_back": 0, "swap_out": 0}, 0, DEPENDS)])
def test_a_cached_disk_does_what_tmem_does_but_for_pages_that_are_held_twice(cache, twice, verdict):
    found = answer("E14", tmem=operations(read_back=0, swap_out=0), swapcache=operations(twice, **cache))
    assert found.verdict is verdict
    assert f"{twice} of 50" in found.figure and "did not finish under both" in found.figure
    assert ("swap: not as he said" in found.why) == bool(cache["swap_out"])


def test_common_guests_count_where_both_finished():
    results = {"tmem/2/1": Found("", run(guest_disk_reads=10)), "swapcache/2/1": Found("", run(guest_disk_reads=30)),
               "tmem/2/2": Found("", run(guest_disk_reads=1000)), "swapcache/2/2": Found("", None, "too slow")}
    assert hostcache.on_common_guests(results) == (
        "the common guests, files / swap: 3.00 / (0 against none) times tmem's transfers, 2 runs")


# E15, E16, E17

def shrunk(written, wrong=0):
    return {"written_by_shrinking": written, "wrong": wrong, "pages": 64, "written_before": 0, "stored_again": 64,
            "found": 64, "returned_frames": 9}


@pytest.mark.parametrize(("tmem", "back", "wrong", "verdict"), [
    (0, 9, 0, SUPPORTED), (1, 9, 0, REFUTED), (0, 0, 0, REFUTED), (0, 9, 1, DEPENDS)])
def test_who_may_refuse_need_not_write(tmem, back, wrong, verdict):
    found = answer("E15", tmem=shrunk(0), persistent=shrunk(tmem), through=shrunk(0, wrong), back=shrunk(back))
    assert found.verdict is verdict


def dead(count, reads=0):
    return {"frames": 100, "dead": count, "live_pages": 10, "live_reads": reads}


@pytest.mark.parametrize(("cache", "trimmed", "tmem", "verdict"), [
    (90, 0, 0, SUPPORTED), (0, 0, 0, REFUTED), (90, 5, 0, DEPENDS), (90, 0, 5, DEPENDS)])
def test_dead_blocks_are_cached_where_nobody_is_told(cache, trimmed, tmem, verdict):
    found = answer("E16", cache=dead(cache, 7), trimmed=dead(trimmed), tmem=dead(tmem))
    assert found.verdict is verdict and "7, 0 and 0" in found.why


@pytest.mark.parametrize(("shared", "separate", "verdict"), [
    (100, 250, SUPPORTED), (250, 250, REFUTED), (100, 100, DEPENDS)])
def test_an_image_is_shared_if_each_page_takes_one_frame(shared, separate, verdict):
    frames = dict(zip(hostcache.ARMS, (shared, separate, 250, 100, 250), strict=True))
    found = answer("E17", **{arm: {"frames": count, "different": 100} for arm, count in frames.items()})
    assert found.verdict is verdict and "tmem can do it as well: tmem-shared;" in found.why


# E18, E20, E29, E30

@pytest.mark.parametrize(("had", "verdict"), [(3, SUPPORTED), (64, REFUTED)])
def test_a_newcomer_starves_or_not(had, verdict):
    def arrived(had):
        return {"had": had, "had_then": 64, "pages": 64, "stored": 9, "allowed": 20}
    found = {name: arrived(had if name == "preswap" else 64) for name in pools.ARRIVALS}
    shown = answer("E18", classes={"pages": 8, "freed": {"volatile": 8, "persistent": 0}}, **found)
    assert shown.verdict is verdict
    assert "preswap, written back 64" in shown.figure and "persistent 0" in shown.figure


@pytest.mark.parametrize(("default", "exclusive", "verdict"), [
    (1, 0, SUPPORTED), (30, 0, DEPENDS), (30, 20, REFUTED)])
def test_doubles_are_few_or_not(default, exclusive, verdict):
    def looked(doubles):
        return [{"frames": 200, "file_doubles": doubles, "anonymous_doubles": 0, "disk_reads": 1, "swap_reads": 2}]
    found = answer("E20", duplicates={"default": looked(default), "exclusive": looked(exclusive), "kept": looked(50)})
    assert found.verdict is verdict and f"{default / 2:.1f} %" in found.figure and "25.0 %" in found.figure


@pytest.mark.parametrize(("put_us", "call_ns", "verdict"), [
    (1, 1, SUPPORTED), (100, 1, DEPENDS), (2000, 1, REFUTED), (1, 400, REFUTED)])
def test_a_call_is_noise_beside_a_slow_disk_one_a_page_and_in_a_program(put_us, call_ns, verdict):
    swapping = {"call_ns": call_ns, "disk_ns": 1000, "pages": 9, "calls": 3}
    found = answer("E29", calls={"worst": {"put_ns": 1000 * put_us, "ping_ns": 900},
                                 "swapping": {"hdd/frozen": swapping, "ssd/frozen": swapping}})
    assert found.verdict is verdict and "below 5 us with an ssd" in found.why and "3.0 pages a call" in found.figure


@pytest.mark.parametrize(("wrong", "dropped", "verdict"), [(0, 5, SUPPORTED), (1, 5, REFUTED), (0, 0, DEPENDS)])
def test_dropped_entries_are_safe_if_no_page_is_wrong(wrong, dropped, verdict):
    rows = [{"rate": rate, "operations": 10, "wrong": wrong, "dropped": dropped, "disk_reads": 5, "clock_ns": 100}
            for rate in copies.RATES]
    assert answer("E30", dropping={"rows": rows}).verdict is verdict


# E33

BITS = [1, 0, 0, 1, 1, 0, 1, 0] * 10
NOTHING = [0] * len(BITS)
SLOW = [900 if bit else 100 for bit in BITS]


def probed(answers=NOTHING, times=NOTHING, own=NOTHING):
    return {"bits": BITS, "answers": answers, "ns": list(times), "own_ns": list(own), "intruders": 0}


@pytest.mark.parametrize(("shared", "private", "verdict"), [
    (probed(times=SLOW), probed(), SUPPORTED), (probed(BITS), probed(), REFUTED), (probed(), probed(), REFUTED),
    (probed(times=SLOW), probed(times=SLOW), DEPENDS)])
def test_a_pool_tells_by_time_whatever_its_answer(shared, private, verdict):
    found = dict.fromkeys(pools.CHANNELS, probed()) | {"shared pool": shared, "private pools": private}
    assert answer("E33", **found).verdict is verdict


def test_who_else_tells_is_said():
    found = dict.fromkeys(pools.CHANNELS, probed()) | {
        "shared pool": probed(times=SLOW, own=SLOW), "dedup": probed(times=SLOW)}
    said = answer("E33", **found)
    assert "shared pool 0.00 / 1.00 / 1.00, private pools 0.00 / 0.00 / 0.00" in said.figure
    assert "tell more than 0.05 bits, too: dedup (" in said.why


def test_what_a_look_tells_is_in_bits():
    assert pools.told(BITS, BITS) == pytest.approx(1.0)
    assert pools.told(BITS, [1 - bit for bit in BITS]) == pytest.approx(1.0)
    assert pools.told(BITS, NOTHING) == 0
    assert pools.told([1, 1, 0, 0], [1, 0, 1, 0]) == pytest.approx(0.0)
    assert pools.told_by_time(BITS, SLOW) == pytest.approx(1.0)
    assert pools.told_by_time(BITS, [7] * len(BITS)) == 0
