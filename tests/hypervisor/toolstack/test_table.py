"""Tables: every figure is there, they fit, and a pipe gets no colours."""

import io
import re

import pytest

from hypervisor.toolstack.comparison import mean_slowdown, several_runs
from hypervisor.toolstack.reading import load
from hypervisor.toolstack.summary import summarise
from hypervisor.toolstack.table import WIDTH, console_for, number, one_run, ratio

MIB = 1 << 20
TEXT = """
name = "two"
budget = "64MiB"
seconds = 4
[[guest]]
name = "bank"
count = 2
ram = "64MiB"
workload = "sqlite"
"""


@pytest.fixture
def make(tmp_path, results, guest):
    path = tmp_path / "x.toml"
    path.write_text(TEXT)

    def summary(scheme="cmm2+tmem", disk=None, **changed):
        baseline = results("baseline", [100.0, 120.0], [100.0, 120.0])
        facts = {"guests": (guest("bank-1", seconds=6.0), guest("bank-2", seconds=24.0)),
                 "counters": {"discards": 1234567, "tmem_hits": 4321, "swap_out": 99}}
        measured = results(scheme, [50.0, 60.0], [60.0, 62.0], **facts | changed)
        return summarise(load(path, {"disk": disk} if disk else {}), baseline, measured, {})
    return summary


def printed(renderable):
    stream = io.StringIO()
    console_for(stream).print(renderable)
    return stream.getvalue()


def row(text, start):
    """Return the cells of the row that starts with `start`."""
    line = next(line for line in text.splitlines() if line.strip().startswith(start))
    return re.split(r"\s{2,}", line.strip())


def test_one_run_fits_on_a_pipe_without_colours(make):
    text = printed(one_run(make()))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text, "nothing is cut"


def test_wide_run_still_fits(make, guest):
    big = {"workload": "analytics", "ram": 256 * MIB, "ram_given": 128 * MIB, "operations": 1234567, "seconds": 10.0,
           "pages_verified": 12345678}
    text = printed(one_run(make(guests=(guest("bank-1", **big, pid=1),))))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert row(text, "bank-1")[:8] == ["bank-1", "analytics", "128.0/256.0", "1,234,567", "123,457", "-", "12,345,678",
                                       "0"]


def test_no_figure_is_cut_however_wide(make, guest):
    text = printed(one_run(make(guests=(guest("a" * 24, ram=1 << 44, ram_given=1 << 43, operations=10 ** 15),))))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text


def test_one_run_shows_its_figures(make):
    text = printed(one_run(make()))
    assert "two: scheme cmm2+tmem, budget 64.0 MiB for 2 guests with 128.0 MiB; seed 1, software faults" in text
    assert row(text, "bank-1") == ["bank-1", "sqlite", "64.0", "1,000", "167", "1.50", "500", "0", "37.5"]
    assert row(text, "bank-2") == ["bank-2", "sqlite", "64.0", "1,000", "42", "6.00", "500", "0", "37.5"]
    assert row(text, "arena, psutil PSS") == ["arena, psutil PSS", "110.0", "120.0", "55.0", "60.0", "50.0 %"]
    assert row(text, "arena, kernel's count") == ["arena, kernel's count", "110.0", "120.0", "61.0", "62.0", "44.5 %"]
    assert row(text, "whole processes, PSS") == ["whole processes, PSS", "140.0", "150.0", "85.0", "90.0", "39.3 %"]
    assert row(text, "discards")[:3] == ["discards", "7", "1,234,567"]
    assert "tmem hits" in text
    assert "4,321" in text
    assert "waits:   fault 4.00 s (bank-1 2.00)" in text
    assert "audit:   6 checks, ledger and kernel at most 0 frames apart" in text
    assert "peak:    16,000 of 16,384 frames, by the kernel's count 63.0 MiB" in text
    assert "verdict: 1,000 pages verified, none wrong; saved 44.5 % (49.0 MiB, kernel); slow-down up to 6.00" in text


def test_disks_with_a_cost_are_named_in_header_and_line_and_others_are_not(make, guest):
    waits = (guest("bank-1", seconds=6.0, virtual_seconds=2.0), guest("bank-2", seconds=4.0, virtual_seconds=4.0))
    text = printed(one_run(make(disk="hdd", guests=waits, counters={"swap_busy_ns": 1_500_000_000})))
    words = " ".join(text.split())
    assert "software faults, disk hdd in virtual time" in words
    assert ("disk: hdd, 8 ms, 1 at once, 100 MB/s, virtual time; virtual waits 6.00 s (bank-2 4.00); hypervisor's swap "
            "disk busy 1.50 s") in words
    assert row(text, "bank-1")[5] == "2.00", "by its own clock: 8 s against 4"
    plain = printed(one_run(make()))
    assert "disk:" not in plain and "virtual" not in plain
    together = printed(several_runs([make(disk="hdd", guests=waits), make("swap", disk="hdd")]))
    assert row(together, "longest guest's clock") == ["longest guest's clock, s", "4.00", "8.00", "24.00"]


def test_rows_of_the_hosts_cache_are_shown_where_a_scheme_has_one(make):
    cached = make("swapcache", counters={"host_cache_hits": 77})
    assert re.search(r"trimmed from host cache +0 +0", printed(one_run(cached)))
    assert row(printed(several_runs([make(), cached])), "found in host cache")[1:] == ["0", "0", "77"]
    assert "host cache" not in printed(one_run(make()))


def test_failed_run_says_so_and_shows_no_gain(make, guest):
    died = guest("bank-1", seconds=None, exit_status=-9)
    problems = ("guest 'bank-1' was killed by signal 9", "another")
    text = printed(one_run(make(guests=(died, guest("bank-2")), problems=problems)))
    assert row(text, "bank-1")[4:] == ["-", "-", "500", "0", "37.5"]
    assert "verdict: FAILED: cmm2+tmem: guest 'bank-1' was killed by signal 9 (and 1 more, on standard error)" in text
    assert "verified, none wrong" not in text


def test_cut_ram_is_shown_beside_the_full(make, guest):
    text = printed(one_run(make(guests=(guest("bank-1", ram_given=20 * MIB),))))
    assert row(text, "bank-1")[2] == "20.0/64.0"


def test_schemes_beside_each_other(make):
    summaries = [make(scheme) for scheme in ("none", "swap", "tmem", "cmm2", "cmm2+tmem")]
    text = printed(several_runs(summaries))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "two: 5 schemes, budget 64.0 MiB for 2 guests" in text
    assert row(text, "pages") == ["pages", "baseline", "none", "swap", "tmem", "cmm2", "cmm2+tmem"]
    assert row(text, "guest disk reads") == ["guest disk reads", *["20"] * 6]
    assert row(text, "hypervisor swap out") == ["hypervisor swap out", "2", *["99"] * 5]
    assert row(text, "slow-down, geometric mean") == ["slow-down, geometric mean", "1.00", *["3.00"] * 5]
    assert row(text, "slow-down, worst guest") == ["slow-down, worst guest", "1.00", *["6.00"] * 5]
    assert row(text, "saved (the lesser claim)") == ["saved (the lesser claim)", *["44.5 %"] * 5]
    assert text.count("pages verified, none wrong") == 5


def test_mean_slowdown_leaves_out_who_did_not_finish(make, guest):
    assert mean_slowdown(make(guests=(guest("bank-1", seconds=8.0), guest("bank-2", seconds=None)))) == 2.0
    assert mean_slowdown(make(guests=(guest("bank-1", seconds=None),))) is None


def test_figures_that_are_missing_are_dashes():
    assert (number(None), ratio(None), number(0), ratio(0.0)) == ("-", "-", "0", "0.00")


@pytest.mark.parametrize(("controller", "line"), [
    ("shares", "balloon: shares, 8.0 MiB at most every 0.2 s, tax 0.75; 12,345 pages in balloons at the end"),
    ("timed", "balloon: timed, 8.0 MiB at most every 0.2 s; 12,345 pages in balloons at the end"),
    ("self", "balloon: self; 12,345 pages in balloons at the end")])
def test_balloons_have_a_line_where_there_are_any(make, tmp_path, guest, controller, line):
    (tmp_path / "x.toml").write_text(TEXT + f'[balloon]\ncontroller = "{controller}"\n')
    guests = (guest("bank-1", counters={"balloon_pages": 12000}), guest("bank-2", counters={"balloon_pages": 345}))
    assert line in printed(one_run(make("balloon", guests=guests))).splitlines()
    assert "balloon" not in printed(one_run(make("cmm2", guests=guests)))
