"""Tenants: known touches, clocks of their own, and every page verified."""

import numpy as np
import pytest

from guests.mappings.operator import Operator
from guests.trials.tenant import COUNTED, HOST_COUNTED, Load, Needs, Tenant, disk_pages, grown, turns
from guests.workloads.proof import WrongContent
from shm.diskcost import MODELS

NEEDS = Needs(ram=512, file=120, anon=120)
BOTH = Load(file=120, anon=120)


@pytest.fixture
def tenant(machine):
    made = []

    def make(scheme="cmm2", budget=1000, needs=NEEDS, number=0, **more) -> Tenant:
        cluster = made[0].guest.cluster if made else machine(budget, scheme, swap=4000, disk="ssd", **more).cluster
        made.append(Tenant(cluster, number, needs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_its_clock_is_thinking_and_waiting_alone(tenant):
    one = tenant()
    one.take_up(BOTH)
    one.work(50)
    with Operator(one.guest.cluster) as operator:
        counted = one.counted(operator)
    assert counted["file_reads"] > 0 and counted["waited_ns"] >= counted["file_reads"] * MODELS["ssd"].latency_ns // 8
    assert one.now_ns == 50 * NEEDS.think_ns + counted["waited_ns"]
    one.sleep_until(one.now_ns + 5)
    assert one.now_ns == 50 * NEEDS.think_ns + counted["waited_ns"] + 5
    assert sum(one.stalls) == 50
    assert disk_pages(counted) == counted["file_reads"]


@pytest.mark.parametrize("scheme", ["swap", "tmem"])
def test_the_touches_are_the_same_under_any_scheme(tenant, scheme):
    """As many stores to each page, whatever the host does meanwhile."""
    one = tenant(scheme, budget=300 if scheme == "swap" else 1000)
    one.take_up(BOTH)
    one.fill()
    one.work(300)
    assert one.operations == 300 and one._versions.sum() == 173
    assert one.load == BOTH and BOTH.pages == 240


def test_a_wrong_page_is_found(tenant):
    one = tenant()
    one.take_up(Load(file=1))
    one._file_pages = one._file_pages ^ np.uint8(1)
    with pytest.raises(WrongContent, match="file, page 0"):
        one.touch()


def test_other_programs_have_a_region_of_their_own(tenant):
    one = tenant()
    one.take_up(Load(anon=100), renew=True)
    one.fill()
    assert one.kernel.committed_pages == 100
    one.take_up(Load(anon=20), renew=True)
    one.visit()
    assert one.kernel.committed_pages == 20 and (one._versions == 1).all()


def test_who_is_behind_goes_first_and_idle_ones_only_sleep(tenant):
    one, other = tenant(), tenant(number=1)
    one.take_up(Load(anon=10))
    other.take_up(Load())
    turns([one, other], 20 * NEEDS.think_ns)
    assert one.operations == 20 and other.operations == 0
    assert other.now_ns == 20 * NEEDS.think_ns


def test_it_starts_with_what_its_balloon_leaves_it_and_balloons_itself(tenant):
    rules = {"interval_s": 0.001, "down": 1, "min_usable": 100}
    one = tenant("tmem", needs=NEEDS._replace(start=400, selfballoon=rules))
    assert one.pages == 400
    one.take_up(Load(file=20))
    one.work(50)
    assert one.pages == 120 + one.kernel.core.allocator.marks.high, "what it has committed, and the reserve"


def test_what_is_counted_between_two_looks():
    assert grown({"a": 5, "b": 7}, {"a": 2, "b": 7}) == {"a": 3, "b": 0}
    assert not set(COUNTED) & set(HOST_COUNTED)


def test_nobody_waits_while_the_balloon_waits_for_disks(tenant, monkeypatch):
    one = tenant()
    one.take_up(Load(file=20))
    monkeypatch.setattr(one.kernel, "tick", lambda: one._device.passed(1))
    one.sleep_until(7)
    assert one.now_ns == 7
    one.work(3)
    with Operator(one.guest.cluster) as operator:
        counted = one.counted(operator)
    assert counted["aside_ns"] == 4 * MODELS["ssd"].alone_ns(1, 1)
    assert one.now_ns == 7 + 3 * NEEDS.think_ns + counted["waited_ns"]
