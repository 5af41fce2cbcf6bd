"""`memcommons claims` as it is typed, with stand-ins for hypervisor, guests and trials, and with claims of our own."""

import json
import os
import signal
import sys

import pytest

from hypervisor.toolstack.claims import book
from hypervisor.toolstack.claims.claim import Answer, Claim, Verdict, ruled
from hypervisor.toolstack.claims.jobs import Run, Trial
from hypervisor.toolstack.compare.series import Series
from hypervisor.toolstack.means import Means

TABLE = {"name": "two", "budget": "8MiB", "operations": 100, "faults": "software", "hypervisor": {"swap": "1MiB"},
         "guest": [{"name": "a", "ram": "8MiB", "workload": "stress", "options": {"behave": "brisk"}},
                   {"name": "b", "ram": "8MiB", "workload": "stress", "options": {"behave": "brisk"}}]}
GOOD, BAD = ('{"event": "figures", "figures": {"pages": 7}}', '{"event": "failed", "error": "no room"}')


def claim(key, jobs, judge):
    return Claim(key, f"who said {key}", "4A55", f"{key} holds", "two guests", "supported if so", jobs, judge)


def swaps(results):
    count = sum(found.value["counters"]["swap_out"] for found in results.values())
    return Answer(ruled(count > 0, count == 0), f"{count} pages swapped")


def pages(results):
    count = results["one"].value["pages"]
    return Answer(ruled(count == 7, count != 7), f"{count} pages")


OURS = (
    claim("E1", lambda size: {"swap": Run(TABLE, "swap"), "none": Run(TABLE, "none")}, swaps),
    claim("E2", lambda size: {"swap": Run(TABLE, "swap")}, swaps),
    claim("E3", lambda size: {"one": Trial("mappings", {"scheme": "cmm2", "budget": 8 << 20})}, pages),
    claim("E4", lambda size: {}, lambda results: Answer(Verdict.NOT_TESTED, "-", "it needs two machines")))


def trial_that_says(line):
    return [sys.executable, "-S", "-E", "-c", f"input(); print({line!r})"]


@pytest.fixture
def says(monkeypatch):
    """Let trials say something else."""
    patched = Means.__init__

    def let(line):
        def init(self, *args, **keywords):
            patched(self, *args, **{"trial": trial_that_says(line)} | keywords)
        monkeypatch.setattr(Means, "__init__", init)
    return let


@pytest.fixture
def claims(typed, stand_ins, monkeypatch, says):
    """Type `memcommons claims` with our claims."""
    monkeypatch.setattr(book, "CLAIMS", {one.key: one for one in OURS})
    monkeypatch.setattr("hypervisor.toolstack.claims.claims.CLAIMS", book.CLAIMS)
    says(GOOD)
    return lambda *words: typed("claims", *words, "--faults", "software")


def rows(out):
    return {row["key"]: row for row in json.loads(out)["claims"]}


def test_every_job_is_run_once_however_many_claims_need_it(claims, phases):
    status, out, err = claims("--json")
    assert (status, err) == (0, "")
    assert [label for label, _ in phases] == ["baseline", "swap", "none"]
    found = rows(out)
    assert {key: row["verdict"] for key, row in found.items()} == {
        "E1": "refuted", "E2": "refuted", "E3": "supported", "E4": "not tested here"}
    assert found["E4"]["why"] == "it needs two machines"
    assert found["E2"]["command"] == "memcommons claims E2"
    assert found["E2"]["jobs"][0] in found["E1"]["jobs"]
    assert json.loads(out)["verdicts"] == {"supported": 1, "refuted": 2, "depends": 0, "not tested here": 1}


def test_only_the_claims_that_are_named_are_run(claims, phases):
    status, out, _ = claims("e4", "E3", "--json", "--quick")
    assert status == 0 and list(rows(out)) == ["E3", "E4"] and phases == []
    assert rows(out)["E3"]["command"] == "memcommons claims E3 --quick"


def test_an_unknown_claim_is_refused_in_one_line(claims):
    assert claims("E1", "E9") == (2, "", "'E9' is not a claim; allowed: E1 to E4\n")


def test_people_read_a_table(claims):
    _, out, _ = claims("E3", "E4")
    assert "E3" in out and "7 pages" in out and "who said E3" in out
    assert "verdicts: 1 supported, 1 not tested here" in out


def test_a_trial_that_fails_is_no_verdict(claims, says):
    says(BAD)
    status, out, err = claims("E3", "--json")
    assert (status, err) == (1, "trial mappings, cmm2: no room\n")
    assert rows(out)["E3"]["verdict"] == "not tested here"
    assert rows(out)["E3"]["why"] == "a run did not finish: trial mappings, cmm2: no room"


@pytest.mark.parametrize("line", ["no event", '{"event": "ready"}', '{"event": "figures", "figures": 7}'])
def test_a_trial_that_says_what_it_may_not_is_a_failure(claims, says, line):
    says(line)
    status, _, err = claims("E3", "--json")
    assert status == 1 and "trial mappings, cmm2: trial 'mappings' (pid " in err


def test_a_trial_that_says_nothing_is_a_failure(claims, monkeypatch, says):
    monkeypatch.setattr(sys.modules[__name__], "trial_that_says", lambda line: [sys.executable, "-S", "-E", "-c", ""])
    says("")
    status, _, err = claims("E3", "--json")
    assert status == 1 and "ended with status 0" in err


def test_resume_goes_on_with_what_is_kept(claims, phases, tmp_path, says):
    claims("--out", str(tmp_path / "out"))
    phases.clear()
    says(BAD)                                    # nobody will ask
    status, out, _ = claims("--out", str(tmp_path / "out"), "--resume", "--json")
    assert status == 0 and phases == [] and rows(out)["E3"]["verdict"] == "supported"
    kept = json.loads((tmp_path / "out/claims.json").read_text())
    assert kept["claims"] == json.loads(out)["claims"]
    assert all(job["seconds"] is not None for job in kept["jobs"].values())


def test_a_folder_of_the_other_size_is_refused(claims, tmp_path):
    claims("E4", "--out", str(tmp_path / "out"))
    status, out, err = claims("E4", "--out", str(tmp_path / "out"), "--resume", "--quick")
    assert (status, out) == (2, "") and "this differs: size (full then, quick now)" in err


def test_a_signal_keeps_what_was_finished(claims, phases, tmp_path, monkeypatch):
    measured = Series.measured

    def interrupted(self, point, *rest):
        if point.scheme == "none":
            os.kill(os.getpid(), signal.SIGINT)
        return measured(self, point, *rest)
    monkeypatch.setattr(Series, "measured", interrupted)
    status, _, err = claims("--out", str(tmp_path / "out"))
    assert status == 130 and "2 finished runs kept in" in err
    assert not (tmp_path / "out/claims.json").exists()
    monkeypatch.setattr(Series, "measured", measured)
    phases.clear()
    status, *_ = claims("--out", str(tmp_path / "out"), "--resume", "--json")
    assert status == 0 and [label for label, _ in phases] == ["none"]


def test_the_page_holds_every_claim(claims, tmp_path):
    claims("--page", str(tmp_path / "claims.md"), "--out", str(tmp_path / "out"))
    page = (tmp_path / "claims.md").read_text()
    assert page == (tmp_path / "out/claims.md").read_text()
    assert all(f"\n## {one.key}\n" in page and one.criterion in page for one in OURS)
    assert "made anew by `memcommons claims --out DIR --page docs/claims.md`" in page


def test_a_page_that_cannot_be_written_is_said(claims, tmp_path):
    assert claims("E4", "--page", str(tmp_path / "no/claims.md")) == (
        2, "", f"--page: {tmp_path}/no is no folder; give a file in one\n")
    status, out, err = claims("E4", "--page", str(tmp_path))
    assert status == 1 and "E4" in out and err == (
        f"--page: {tmp_path}: Is a directory; give a file that can be written\n")
