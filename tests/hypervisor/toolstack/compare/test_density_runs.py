"""`memcommons density` as it is typed, with stand-ins for hypervisor and guests."""

import json

import pytest

TEXT = """
name = "dense"
budget = "16MiB"
faults = "software"
operations = 100
hypervisor = {swap = "1MiB"}
guest = [
    {name = "a", count = 2, ram = "4MiB", workload = "stress", options = {behave = "out-of-memory-when-cut"}},
    {name = "b", ram = "4MiB", workload = "stress", options = {behave = "brisk"}}]
"""


@pytest.fixture
def scenario(stand_ins):
    stand_ins.write_text(TEXT)
    return stand_ins


@pytest.fixture
def searched(typed, scenario):
    return lambda *words: typed("density", str(scenario), "--most", "7", "--seeds", "1", *words)


def test_it_searches_upward_from_what_the_budget_holds(searched, phases):
    """Four guests of 4 MiB in 16: under `none` a fifth cuts their RAM, which these guests do not survive."""
    status, out, err = searched("--schemes", "none", "--json")
    [row] = json.loads(out)["schemes"]
    assert (status, err) == (0, "")
    assert phases == [("baseline", 4), ("none", 4), ("baseline", 5), ("none", 5)]
    assert (row["most"], row["at_the_limit"], row["next"]["guests"]) == (4, False, 5)
    assert (row["at"]["fits"], row["at"]["worst_slowdown"], row["at"]["promised"]) == (True, 1.0, 1.0)
    assert "out of memory" in row["next"]["failed"]


def test_baselines_are_shared_by_the_schemes(searched, phases):
    status, out, _ = searched("--schemes", "none,swap")
    assert status == 0
    assert [label for label in phases if label[0] == "baseline"] == [("baseline", n) for n in (4, 5, 7)]
    assert len(phases) == len(set(phases))
    assert "none: 5 guests did not finish: guest 'a-1'" in " ".join(out.split())
    assert "swap: perhaps more than 7: not tried, 7 guests are the most that were asked for" in " ".join(out.split())


def test_each_count_is_run_with_each_seed(searched, tmp_path, phases):
    out = ("--out", str(tmp_path / "out"))
    status, text, _ = searched("--schemes", "none", "--seeds", "2", "--json", "--seed", "5", *out)
    assert (status, json.loads(text)["seeds"]) == (0, [5, 6])
    assert phases == [("baseline", 4), ("none", 4)] * 2 + [("baseline", 5), ("none", 5)] * 2
    assert {path.stem for path in (tmp_path / "out/points").iterdir()} == {
        f"{scheme}-g{count}-s{seed}" for scheme in ("baseline", "none") for count in (4, 5) for seed in (5, 6)}
    phases.clear()
    assert searched("--schemes", "none", "--seeds", "3", "--seed", "5", *out, "--resume")[0] == 0
    assert phases == [("baseline", 4), ("none", 4), ("baseline", 5), ("none", 5)], "the third seed alone"


def test_the_table(searched):
    out = searched("--schemes", "none,swap")[1]
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()[:5] in ("none ", "swap ")}
    assert rows["none"][1:3] == ["4", "1.00"]
    assert rows["none"][-1] == "1.00"
    assert rows["swap"][1] == "7+"
    assert rows["swap"][-1] == "1.75", "28 MiB promised in a budget of 16"


def test_resume_asks_only_what_is_not_known(searched, tmp_path, phases):
    out = ("--out", str(tmp_path / "out"))
    first = searched("--schemes", "none", "--json", *out)[1]
    phases.clear()
    assert searched("--schemes", "none", "--json", *out, "--resume")[1] == first
    assert phases == []
    searched("--schemes", "none,swap", *out, "--resume")
    assert phases == [("swap", 4), ("swap", 5), ("baseline", 7), ("swap", 7)]


def test_another_slow_down_uses_the_same_points(searched, tmp_path, phases):
    out = ("--out", str(tmp_path / "out"))
    searched("--schemes", "swap", *out)
    phases.clear()
    assert json.loads(searched("--schemes", "swap", "--json", "--slowdown", "1", *out, "--resume")[1])["slowdown"] == 1
    assert phases == []


def test_a_comparison_is_no_density(searched, typed, scenario, tmp_path):
    searched("--schemes", "none", "--out", str(tmp_path / "out"))
    status, _, err = typed("compare", str(scenario), "--out", str(tmp_path / "out"), "--resume")
    assert status == 2
    assert "this differs: command (density then, compare now)" in err


def test_room_ends_the_search(typed, scenario):
    """A budget holds so many guests at all: 1 MiB, and 64 pages for each."""
    status, out, _ = typed("density", str(scenario), "--budget", "1536KiB", "--schemes", "swap", "--seeds", "1",
                           "--json")
    told = json.loads(out)
    assert (status, told["limit"]) == (0, 2)
    assert "is below the floor" in told["limit_why"]
    assert told["schemes"][0]["most"] == 2


def test_a_baseline_that_fails_is_said(searched, scenario):
    scenario.write_text(TEXT.replace("brisk", "failed"))
    status, out, err = searched("--schemes", "none,swap")
    assert status == 1
    assert "baseline 4 guests seed 1: guest 'b'" in err
    assert "its baseline failed" in " ".join(out.split())


@pytest.mark.parametrize(("words", "line"), [
    (["--slowdown", "0.9"], "--slowdown: 0.9 is not possible; allowed: 1 to 10"),
    (["--slowdown", "nan"], "--slowdown: nan is not possible"),
    (["--seeds", "0"], "--seeds: 0 is not possible"),
    (["--slowdown", "x"], "memcommons density: Invalid value for '--slowdown'"),
    (["--most", "0"], "memcommons density: Invalid value for '--most'"),
    (["--schemes", "xen"], "--schemes: 'xen' is not a scheme"),
    (["--budget", "1MB"], "--budget: '1MB' is not a size"),
    (["--budget", "64KiB"], "--budget: 64.0 KiB is below the floor"),
    (["--disk", "tape"], "--disk: 'tape' is not allowed"),
    (["--seed", "-1"], "--seed: -1 is too small; at least 0")])
def test_wrong_use_is_one_line_and_nothing_is_run(searched, phases, words, line):
    status, out, err = searched(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)
    assert phases == []
