"""From summaries to the table: means over the seeds that finished, and everything else said."""

import io
import json
import re

import pytest

from hypervisor.toolstack.compare.figures import FIGURES, baseline_figures_of, figures_of
from hypervisor.toolstack.compare.outcome import Ran, document, outcome, ran
from hypervisor.toolstack.compare.points import Point
from hypervisor.toolstack.compare.statistics import Estimate
from hypervisor.toolstack.compare.table import comparison, short, shown
from hypervisor.toolstack.summary import summarise
from hypervisor.toolstack.table import WIDTH, console_for

MIB = 1 << 20
FACTS = {"name": "two", "guests": 2, "ram_bytes": 128 * MIB, "faults": "software",
         "disk": {"latency": "none", "time": "virtual", "direct": False}}


@pytest.fixture
def summary(banks, results, guest):
    def made(scheme="swap", first=8.0, second=4.0, **changed):
        baseline = results("baseline", [100.0, 120.0], [100.0, 120.0])
        facts = {"guests": (guest("bank-1", seconds=first), guest("bank-2", seconds=second)), "cpu_seconds": 1.5,
                 "counters": {"discards": 1_234_567, "tmem_hits": 20, "tmem_puts_stored": 30, "swap_out": 99}}
        measured = results(scheme, [50.0, 60.0], [60.0, 62.0], **facts | changed)
        return summarise(banks, baseline, measured, {})
    return made


@pytest.fixture
def body(summary):
    def made(**changed):
        return {"failed": None, "wrong": False, "summary": summary(**changed)}
    return made


@pytest.fixture
def found(body):
    """Two schemes at two overcommits with three seeds; cmm2 fails once at 2."""
    def made(schemes=("swap", "cmm2")):
        runs = []
        for seed in (1, 2, 3):
            for factor in (1.0, 2.0):
                for n, scheme in enumerate(schemes):
                    time = 4.0 * (1 + n) * factor + seed / 10
                    runs.append(ran(Point(scheme, seed, factor), body(scheme=scheme, first=time, second=time)))
        runs[-1] = ran(runs[-1].point, {"failed": "guest 'b' was out of memory", "wrong": False})
        return outcome(schemes, [1.0, 2.0], [1, 2, 3], runs, [])
    return made


def test_figures_of_a_summary(summary):
    figures = figures_of(summary())
    assert figures["slowdown"] == pytest.approx(2 ** 0.5), "geometric mean of 2 and 1"
    assert figures["worst_slowdown"] == 2
    assert figures["fairness"] == pytest.approx(1.5 ** 2 / (2 * 1.25)), "of the speeds 1/2 and 1"
    assert figures["guest_disk_reads"] == 20
    assert figures["copies"] == 50
    assert figures["hypervisor_cpu_s"] == 1.5
    assert figures["rss_kernel_mib"] == pytest.approx(61)
    assert figures["rss_psutil_mib"] == pytest.approx(55)
    assert figures["frames_mean"] == pytest.approx(61 * 256)
    assert figures["frames_peak"] == 16000
    assert set(figures) == {figure.name for figure in FIGURES}


def test_fairness_is_of_the_speeds(summary):
    """One guest of three at a quarter: Jain of (1, 1, 1/4), and not of the slow-downs (1, 1, 4), which is 0.667."""
    made = summary(first=4.0, second=4.0)
    made["guests"].append(made["guests"][0] | {"slowdown": 4.0})
    assert figures_of(made)["fairness"] == pytest.approx(2.25 ** 2 / (3 * 2.0625))


def test_figures_of_its_baseline(summary):
    figures = baseline_figures_of(summary())
    assert (figures["slowdown"], figures["discards"], figures["rss_kernel_mib"]) == (1, 7, pytest.approx(110))


def test_what_is_not_there_is_no_figure(summary):
    figures = figures_of(summary())
    assert [figures[name] for name in ("latency_p50_us", "latency_p99_us", "guests_cpu_s")] == [None] * 3


def test_latencies_and_cpu_are_used_where_they_are(summary):
    made = summary()
    for one, low, high, cpu in zip(made["guests"], (1000, 4000), (9000, 50_000), (0.5, 0.25), strict=True):
        one["latency_ns"], one["cpu_s"] = {"p50": low, "p99": high}, cpu
    figures = figures_of(made)
    assert figures["latency_p50_us"] == pytest.approx(2.0), "geometric mean"
    assert figures["latency_p99_us"] == 50, "the worst guest"
    assert figures["guests_cpu_s"] == 0.75
    made["guests"][0]["cpu_s"] = None
    assert figures_of(made)["guests_cpu_s"] is None, "a sum of some is no sum"


def test_a_guest_that_did_not_finish_leaves_no_time(summary):
    figures = figures_of(summary(first=None))
    assert [figures[name] for name in ("slowdown", "worst_slowdown", "fairness")] == [None] * 3


def test_means_are_over_the_seeds(found):
    cell = found().cell("swap", 1.0)
    assert (cell.finished, cell.failed) == (3, ())
    assert cell.figures["slowdown"].mean == pytest.approx(1.05)
    assert cell.figures["slowdown"].count == 3


def test_a_run_that_did_not_finish_is_in_no_mean_and_is_said(found):
    cell = found().cell("cmm2", 2.0)
    assert (cell.finished, cell.failed) == (2, ("seed 3: guest 'b' was out of memory",))
    assert cell.figures["slowdown"].count == 2
    assert found().problems == (), "it is a result, and no problem of the comparison"


def test_wrong_pages_are_a_problem(body):
    runs = [Ran(Point("swap", 1, 1.0), "2 pages were wrong", True)]
    assert outcome(["swap"], [1.0], [1], runs, ["x"]).problems == (
        "x", "swap overcommit 1 seed 1: 2 pages were wrong")


def test_each_pair_is_compared_at_each_overcommit(found):
    pairs = found(("swap", "cmm2", "tmem")).pairs
    assert {factor: [(pair.first, pair.second) for pair in pairs[factor]] for factor in pairs} == {
        factor: [("swap", "cmm2"), ("swap", "tmem"), ("cmm2", "tmem")] for factor in (1.0, 2.0)}
    assert pairs[1.0][0].faster == "swap"
    assert pairs[2.0][0].seeds == 3
    assert pairs[2.0][1].seeds == 2, "tmem did not finish with one seed"


def test_the_document_is_json_and_says_all(found):
    told = json.loads(json.dumps(document(found(), FACTS)))
    assert (told["version"], told["name"], told["faults"]) == (1, "two", "software")
    assert [(cell["scheme"], cell["overcommit"]) for cell in told["cells"]] == [
        ("swap", 1.0), ("cmm2", 1.0), ("swap", 2.0), ("cmm2", 2.0), ("baseline", 1.0), ("baseline", 2.0)]
    assert told["cells"][3]["did_not_finish"] == ["seed 3: guest 'b' was out of memory"]
    assert told["cells"][0]["figures"]["slowdown"]["n"] == 3
    assert told["pairs"][0]["faster"] == "swap"
    assert len(told["runs"]) == 12


def printed(found):
    stream = io.StringIO()
    console_for(stream).print(comparison(found, FACTS))
    return stream.getvalue()


def cells(text, start):
    line = next(line for line in text.splitlines() if line.strip().startswith(start))
    return re.split(r"\s{2,}", line.strip())


def test_the_table_says_it(found):
    text = printed(found())
    assert cells(text, "swap ")[1] == shown(found().cell("swap", 1.0).figures["slowdown"])
    assert cells(text, "cmm2 ")[2].endswith("(2 of 3)")
    assert "cmm2, overcommit 2: did not finish: seed 3: guest 'b' was out of memory" in text
    assert "overcommit 1: swap, cmm2: swap is faster" in text
    assert "disks without a cost" in text
    assert "overcommit 2: budget 64.0 MiB" in text
    assert cells(text, "discards")[1:] == ["7.00", "1.23M", "1.23M"]
    assert "guest swap in" not in text, "a row of nothing but 0"


def test_many_schemes_still_fit(found):
    text = printed(found(tuple(f"scheme-{n}" for n in range(9))))
    table = [line for line in text.splitlines() if " faster" not in line and "takes" not in line]
    assert max(map(len, table)) <= WIDTH
    assert "…" not in text
    assert all(f"scheme-{n}" in text for n in range(9))
    rows = [line for line in text.splitlines() if line.strip().startswith("fairness (Jain)")]
    assert len(rows) == 2 * 3, "four schemes in a table: no cell is broken over two lines"


def test_a_time_that_is_too_good_is_doubted(body):
    runs = [ran(Point("swap", seed, 1.0), body(first=time, second=time)) for seed, time in ((1, 1.0), (2, 1.2))]
    text = " ".join(printed(outcome(["swap"], [1.0], [1, 2], runs, [])).split())
    assert "swap, overcommit 1: 0.28 of the time with all memory granted is less than a scheme explains" in text
    runs = [ran(Point("swap", 1, 1.0), body(first=3.6, second=3.6))]
    assert "less than a scheme explains" not in printed(outcome(["swap"], [1.0], [1], runs, []))


def test_nothing_finished_is_said(body):
    runs = [Ran(Point("swap", 1, 1.0), "too slow", False)]
    text = printed(outcome(["swap"], [1.0], [1], runs, []))
    assert cells(text, "swap")[1] == "did not finish"
    assert "swap, overcommit 1: did not finish: seed 1: too slow" in text


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (0.987, "0.99"), (1.256, "1.26"), (43.21, "43.2"), (432.1, "432"), (4321, "4.32k"), (43_210, "43.2k"),
    (432_100, "432k"), (4_321_000, "4.32M"), (5e9, "5.00G"), (-1234, "-1.23k")])
def test_three_digits(value, text):
    assert short(value) == text


def test_an_interval_is_shown_where_there_is_one():
    assert shown(Estimate(1.0, None, 1)) == "1.00"
    assert shown(Estimate(1.0, 0.25, 2)) == "1.00 ±0.25"
    assert shown(None) == "-"
