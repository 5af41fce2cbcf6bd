"""Phases of stand-ins that do well, die, lie, hang and babble at every step; nothing is ever left behind."""

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from hypervisor.toolstack.interruption import Interrupted
from hypervisor.toolstack.journal import Journal
from shm.errors import HypervisorGone, UsageProblem


def test_well_behaved_cluster_has_no_problems(cluster):
    result = cluster.phase("well", "well").run()
    assert result.problems == ()
    assert [(g.name, g.operations, g.seconds, g.pages_verified, g.exit_status) for g in result.guests] == [
        ("a", 100, 0.0, 5, 0), ("b", 100, 0.0, 5, 0)]
    assert result.counters == {"discards": 7, "hypercalls": 11}
    assert (result.audit_checks, result.max_drift_frames, result.peak_frames, result.kernel_peak_bytes) == (
        5, 0, 100, 409600)
    assert result.guests[0].counters == {"operations": 42}
    assert len(result.samples) >= 2, "one at go, one at the last done"
    assert all(set(sample.guests) == {"a", "b"} and sample.hypervisor for sample in result.samples)
    assert cluster.asked[0] == "list"
    assert cluster.asked[-1] == "audit", "asked while the guests still have their memory"


# What guest a does -> the one problem that is reported; guest b does its work all the same.
MISDEEDS = {
    "fails-at-start": r"guest 'a' \(pid \d+\) ended with status 3: MemoryError: no room",
    "killed-at-start": r"guest 'a' \(pid \d+\) was killed by signal 9",
    "killed-when-ready": r"guest 'a' \(pid \d+\) was killed by signal 9",
    "killed-at-work": r"guest 'a' \(pid \d+\) was killed by signal 9",
    "killed-when-done": r"guest 'a' \(pid \d+\) was killed by signal 9",
    "leaves-badly": r"guest 'a' \(pid \d+\) ended with status 3: the last page was lost",
    "failed": r"guest 'a' \(pid \d+\): page 7 of 'x' was wrong",
    "wrong": r"2 pages were wrong",
    "ready-twice": r"guest 'a' \(pid \d+\) said 'ready' while it was ready, and was ended",
    "done-before-go": r"guest 'a' \(pid \d+\) said 'done' while it was starting, and was ended",
    "done-twice": r"guest 'a' \(pid \d+\) said 'done' while it was done, and was ended",
    "unknown-word": r"guest 'a' \(pid \d+\) said 'hello' while it was starting, and was ended",
    "junk": r"guest 'a' \(pid \d+\) wrote what is no event, and was ended: '\[1, 2\]'",
    "junk-flood": r"guest 'a' \(pid \d+\) wrote what is no event, and was ended: 'x{200}'",
    "not-text": r"guest 'a' \(pid \d+\) wrote what is no event, and was ended: .*",
    "negative": r"guest 'a' \(pid \d+\) reported work that makes no sense: .*'operations': -1.*",
    "too-long": r"guest 'a' \(pid \d+\) reported work that makes no sense: .*'seconds': 1000000.0.*",
    "claims-waits": r"guest 'a' \(pid \d+\) claims to have waited 0.500 s for disks; what was counted comes to 0.000 s "
                    "at the most",
    "latencies-lost": r"guest 'a' \(pid \d+\) reported work that makes no sense: .*'latency': \[99\].*",
    "cpu-of-another": r"guest 'a' \(pid \d+\) reported work that makes no sense: .*'cpu_s': 1000000.0.*",
    "backwards": r"guest 'a' \(pid \d+\) reported work that makes no sense: .*'virtual_seconds': -0.5.*",
    "not-a-number": r"guest 'a' \(pid \d+\) reported work that makes no sense: .*nan.*",
    "a-text": r"guest 'a' \(pid \d+\) reported work that makes no sense: .*'many'.*",
    "a-truth": r"guest 'a' \(pid \d+\) reported work that makes no sense: .*False.*",
    "more": r"guest 'a' \(pid \d+\) did 101 operations; its order was 100",
    "less": r"guest 'a' \(pid \d+\) did 99 operations; its order was 100",
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_misdeed_of_one_guest_is_named_and_the_other_goes_on(cluster, misdeed):
    result = cluster.phase(misdeed, "well").run()
    assert len(result.problems) == 1
    assert re.fullmatch(MISDEEDS[misdeed], result.problems[0])
    assert (result.guests[1].operations, result.guests[1].seconds, result.guests[1].exit_status) == (100, 0.0, 0)
    assert result.counters, "the hypervisor stopped in order"


def test_work_that_was_not_finished_has_no_time(cluster):
    result = cluster.phase("less", "killed-at-work", "well").run()
    assert [guest.seconds for guest in result.guests] == [None, None, 0.0]
    assert result.guests[1].exit_status == -9


@pytest.mark.parametrize(("misdeed", "limit", "well"), [("less", 60.0, True), ("more", 60.0, False),
                                                         ("gave-up", 0.0, False)])
def test_baseline_may_run_out_of_work_but_not_of_time(cluster, misdeed, limit, well):
    """A trace ends when it ends: the measured run then gets the number that the baseline found."""
    result = cluster.phase(misdeed, exact=False, limit=limit).run()
    assert (result.problems == ()) is well
    assert (result.guests[0].seconds is not None) is well


def test_killed_guest_keeps_the_last_figures_that_were_seen(cluster):
    result = cluster.phase("killed-at-work", "well").run()
    assert result.guests[0].operations == 42


def test_guest_that_gives_up_at_its_limit_is_a_slowdown(cluster):
    cluster.answers["list"] = lambda: {"guests": []}
    result = cluster.phase("gave-up", limit=0.0).run()
    assert re.fullmatch(r"guest 'a' \(pid \d+\) had done 1 of 100 operations when its limit of 0 s had passed: a "
                        r"slow-down of more than 10; give it a larger budget, or less work", result.problems[0])


@pytest.mark.parametrize("misdeed", ["hangs", "hangs-deaf"])
def test_guest_over_its_limit_is_ended_and_the_slowdown_named(cluster, misdeed):
    cluster.patience = replaced(cluster, grace=0.1)
    result = cluster.phase(misdeed, limit=0.1).run()
    assert re.match(r"guest 'a' \(pid \d+\) had done 42 of 100 operations when its limit of 0 s", result.problems[0])
    assert result.guests[0].exit_status == -9


def test_guest_that_does_not_end_its_work_is_not_said_to_have_done_less(cluster):
    cluster.patience = replaced(cluster, grace=0.1)
    cluster.answers["list"] = lambda: {"guests": [{"name": "a", "counters": {"operations": 100}}]}
    result = cluster.phase("hangs", limit=0.1).run()
    assert re.match(r"guest 'a' \(pid \d+\) had done all of its 100 operations, and not ended its work, when its",
                    result.problems[0])


def test_guest_that_is_never_ready_is_ended(cluster):
    cluster.patience = replaced(cluster, prepare=0.3)
    result = cluster.phase("hangs-at-start").run()
    assert re.fullmatch(r"guest 'a' \(pid \d+\) was not ready after 0 s, and was ended", result.problems[1])
    assert result.problems[0] == "no guest is left to work"


def test_guest_that_does_not_quit_is_killed(cluster):
    cluster.patience = replaced(cluster, leave=0.3)
    result = cluster.phase("deaf-to-quit").run()
    assert re.fullmatch(r"guest 'a' \(pid \d+\) had not left 0 s after it was told to, and was killed",
                        result.problems[0])


def test_all_guests_killed(cluster):
    result = cluster.phase("killed-at-work", "killed-at-work").run()
    assert [re.sub(r"\d{2,}", "N", line) for line in result.problems] == [
        "guest 'a' (pid N) was killed by signal 9", "guest 'b' (pid N) was killed by signal 9"]


def test_guest_whose_order_is_wrong_is_the_persons_problem(cluster):
    with pytest.raises(UsageProblem, match=r"^guest 'a': line 7 of the trace is damaged$"):
        cluster.phase("refuses", "well").run()


def test_what_a_guest_started_dies_with_it(cluster, tmp_path):
    note = tmp_path / "pid"
    assert cluster.phase("leaves-a-child", note=str(note)).run().problems == ()
    pid, deadline = int(note.read_text()), time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "killed with its parent, it dies in its own time"


# What the hypervisor does -> the problem of the phase.
HYPERVISOR_MISDEEDS = {
    "dies-at-start": r"the hypervisor \(pid \d+\) was killed by signal 9",
    "junk": r"the hypervisor \(pid \d+\) wrote what is no event: 'warning: this is no event'",
    "stops-by-itself": r"the hypervisor \(pid \d+\) was stopped from outside in mid-run",
    "no-account": r"the hypervisor \(pid \d+\) gave no account at its end: .* ended with status 0",
    "drifts": r"the frame ledger and the kernel's count were 3 frames apart",
    "loses": r"a lost page",
    "gives-up": r"the hypervisor \(pid \d+\) gave up: frame 7 has two owners",
}


@pytest.mark.parametrize("misdeed", HYPERVISOR_MISDEEDS)
def test_misdeed_of_the_hypervisor_is_named(cluster, misdeed):
    result = cluster.phase("well", "well", hypervisor=misdeed).run()
    assert re.fullmatch(HYPERVISOR_MISDEEDS[misdeed], result.problems[0])


def test_hypervisor_that_is_never_ready(cluster):
    cluster.patience = replaced(cluster, start=0.3)
    result = cluster.phase("well", hypervisor="hangs-at-start").run()
    assert re.fullmatch(r"the hypervisor \(pid \d+\) was not ready after 0 s", result.problems[0])


def test_hypervisor_that_does_not_stop_is_killed(cluster):
    cluster.patience = replaced(cluster, stop=0.3)
    result = cluster.phase("well", hypervisor="deaf").run()
    assert re.fullmatch(r"the hypervisor \(pid \d+\) did not end within 0 s, and was killed", result.problems[0])


@pytest.mark.parametrize(("misdeed", "line"), [
    ("refuses", "cluster name 'x' is in use"), ("refuses-silently", "no room on the swap disk")])
def test_order_that_the_hypervisor_refuses_is_the_persons_problem(cluster, misdeed, line):
    with pytest.raises(UsageProblem, match=f"^{line}$"):
        cluster.phase("well", hypervisor=misdeed).run()


def test_hypervisor_killed_in_mid_run_and_guests_leave_by_themselves(cluster):
    """It dies between two questions; its guests see their connections break."""
    def kill_it():
        os.kill(next(c.pid for c in psutil.Process().children() if "hypervisor" in c.cmdline()), signal.SIGKILL)
        raise HypervisorGone("nothing comes through the door")

    cluster.answers["list"] = second_time(kill_it)
    result = cluster.phase("hangs", "hangs").run()
    assert [re.sub(r"\d{2,}", "N", line) for line in result.problems] == [
        "the hypervisor (pid N) was killed by signal 9",
        "guest 'a' (pid N) ended with status 1: the hypervisor is gone",
        "guest 'b' (pid N) ended with status 1: the hypervisor is gone"]


def test_hypervisor_that_does_not_answer(cluster):
    def nothing():
        raise HypervisorGone("no answer within 10 s")

    cluster.answers["audit"] = nothing
    result = cluster.phase("well").run()
    assert re.fullmatch(r"the hypervisor \(pid \d+\) does not answer: no answer within 10 s", result.problems[0])


def test_drift_at_the_audit_is_a_problem(cluster):
    cluster.answers["audit"] = lambda: {"max_drift_frames": 2, "problems": ["a lost page"]}
    result = cluster.phase("well").run()
    assert result.max_drift_frames == 2
    assert result.problems == ("the frame ledger and the kernel's count were 2 frames apart", "a lost page")


def test_journal_has_every_start_word_and_end(cluster, tmp_path):
    cluster.journal = Journal(tmp_path / "out")
    cluster.journal.open()
    cluster.phase("killed-at-work", "well").run()
    cluster.journal.close()
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert {"start", "said", "go", "left", "audit"} == {event["event"] for event in events}
    assert [event["status"] for event in events if event["event"] == "left" and event["who"] == "guest 'a'"] == [-9]


@pytest.mark.parametrize(("guest", "hypervisor", "signum"), [
    ("well", "interrupts-us", signal.SIGINT), ("interrupts-us", "well", signal.SIGTERM)])
def test_signal_while_children_start_stops_everything(cluster, guest, hypervisor, signum):
    with pytest.raises(Interrupted) as caught:
        cluster.phase(guest, "well", hypervisor=hypervisor).run()
    assert caught.value.signum == signum
    assert caught.value.exit_status == 128 + signum
    assert caught.value.problems == []


@pytest.mark.parametrize("question", ["list", "audit"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_at_work_stops_everything(cluster, question, signum):
    def interrupt():
        os.kill(os.getpid(), signum)
        return {"guests": []}

    cluster.answers[question] = interrupt if question == "audit" else second_time(interrupt)
    with pytest.raises(Interrupted) as caught:
        cluster.phase("well" if question == "audit" else "hangs", "well").run()
    assert caught.value.signum == signum


def test_second_signal_does_not_disturb_the_way_out(cluster):
    """The guest will not listen, and while it is waited for the next signal comes."""
    cluster.patience = replaced(cluster, leave=0.3)

    def interrupt():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return {"guests": []}

    cluster.answers["list"] = second_time(interrupt)
    with pytest.raises(Interrupted) as caught:
        cluster.phase("hangs-deaf").run()
    assert len(caught.value.problems) == 1
    assert "did not end within 0 s, and was killed" in caught.value.problems[0]


def test_names_that_a_dead_hypervisor_left_are_removed(cluster):
    phase = cluster.phase("well", hypervisor="dies-at-start")
    name = Path(f"/dev/shm/memcommons.{phase._plan.cluster}.abcdef.heap")
    name.write_bytes(b"")
    result = phase.run()
    assert not name.exists()
    assert result.problems[-1] == f"cluster {phase._plan.cluster!r} had left 1 names behind; now removed"


def second_time(answer):
    """The first list comes before go; from the second on the guests are at work."""
    asked = []

    def call():
        asked.append(1)
        return {"guests": []} if len(asked) == 1 else answer()
    return call


def replaced(cluster, **seconds):
    from dataclasses import replace
    return replace(cluster.patience, **seconds)
