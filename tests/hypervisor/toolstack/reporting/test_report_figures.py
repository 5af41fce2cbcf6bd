"""What the pictures are made of: the tail of latencies, the ledgers of input and output, frames over time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.toolstack.reporting.avoided import AGAIN, TAKEN, by_disk, ledger_rows, ledgers
from hypervisor.toolstack.reporting.memory_charts import MOST_OWNERS, held_charts, owners_in
from hypervisor.toolstack.reporting.palette import SOLID
from hypervisor.toolstack.reporting.tail import latency_charts, tail
from hypervisor.toolstack.reporting.told import Holdings
from shm.counters import Count, HostCount
from shm.latency import bucket_of, empty, percentile

MIB = 1 << 20


def histogram(times):
    counts = empty()
    for time in times:
        counts[bucket_of(time)] += 1
    return counts


def test_one_in_n_took_longer():
    points = tail(histogram([1] * 90 + [8] * 9 + [15]))
    assert [(point.x, point.y) for point in points] == [
        (10, pytest.approx(1e-9)), (100, pytest.approx(8e-9)), (100, pytest.approx(15e-9))]


@given(st.lists(st.integers(0, 1 << 40), max_size=60))
def test_a_tail_rises_and_ends_at_the_longest(times):
    points = tail(histogram(times))
    assert all(a.x <= b.x and a.y <= b.y for a, b in pairwise(points))
    if len(times) > 1:
        assert points[-1].y == percentile(histogram(times), 100) / 1e9
        assert points[-1].x == len(times)


def test_a_tail_begins_with_the_slower_half():
    points = tail(histogram([1] * 40 + [2] * 59 + [3]))
    assert [(point.x, point.y) for point in points] == [(100, pytest.approx(2e-9)), (100, pytest.approx(3e-9))]


def test_no_operation_has_no_tail():
    assert tail([]) == tail(empty()) == ()
    assert latency_charts({"sqlite": [("baseline", -1, [])]})[0].lines == ()


COUNTERS = {"guest_disk_reads": 100, "swap_in": 20, "cleancache_hits": 60, "frontswap_loads": 10, "rebuilt_pages": 10,
            "swap_out": 30, "discards": 60, "freed_unused": 10, "hypercalls": 99}


def test_each_page_is_in_one_ledger_once():
    again, taken = ledgers([("swap", COUNTERS)])
    assert sum(part.value for part in again.rows[0].parts) == 200
    assert sum(part.value for part in taken.rows[0].parts) == 100
    assert (by_disk(AGAIN, COUNTERS), by_disk(TAKEN, COUNTERS)) == ((120, 80), (30, 70))
    assert again.rows[0].said == "120 by disk, 80 spared"
    names = [name for kind in (*AGAIN, *TAKEN) for name in kind.plus]
    assert len(set(names)) == len(names)


def test_all_counters_of_the_ledgers_exist():
    known = {name.name.lower() for name in (*Count, *HostCount)}
    assert {name for kind in (*AGAIN, *TAKEN) for name in (*kind.plus, *kind.minus)} <= known


def test_what_a_disk_served_is_solid_and_what_was_spared_is_not():
    assert all((kind.texture == SOLID) is not kind.spared for kind in (*AGAIN, *TAKEN))


def test_pages_that_a_pager_read_were_not_computed():
    counters = {"pager_restored": 50, "pager_disk_reads": 30, "rebuilt_pages": 5}
    [computed] = [kind for kind in AGAIN if "rebuilt_pages" in kind.plus]
    assert computed.of(counters) == 25
    assert computed.of({"pager_disk_reads": 30}) == 0


def test_a_ledger_of_nothing_says_so():
    again, _ = ledgers([("baseline", {})])
    assert again.rows[0].said == "none"
    assert ledger_rows([("baseline", {})]) == []
    assert ledger_rows([("swap", COUNTERS)])[0][2] == "100"


def held(guests, tmem=None):
    return Holdings(guests=guests, tmem=tmem or {}, free=0)


ROWS = [(0.0, held({"b": {"S": 256}, "a": {"S": 512, "V": 256}}, {"ephemeral": 256})),
        (1.0, held({"b": {"S": 256, "U": 256}, "a": {"S": 512}, "idle": {}}, {"persistent": 512, "spare": 256}))]


def test_frames_are_stacked_by_owner_and_state():
    frames, states = held_charts("swap", "swap", ROWS, 8 * MIB)
    found = {(layer.owner, layer.part.partition(":")[0]): layer.values for layer in frames.layers}
    assert found == {
        ("a", "stable"): (2.0, 2.0), ("a", "volatile"): (1.0, 0.0), ("b", "stable"): (1.0, 1.0),
        ("b", "unused"): (0.0, 1.0), ("tmem pool", "tmem, persistent"): (0.0, 2.0),
        ("tmem pool", "tmem, ephemeral"): (1.0, 0.0), ("tmem pool", "tmem, kept free"): (0.0, 1.0)}
    assert {layer.part.partition(":")[0]: layer.values for layer in states.layers} == {
        "stable": (3.0, 3.0), "tmem, persistent": (0.0, 2.0), "volatile": (1.0, 0.0), "unused": (0.0, 1.0),
        "tmem, ephemeral": (1.0, 0.0), "tmem, kept free": (0.0, 1.0)}
    assert frames.rule.value == 8.0


def test_both_pictures_have_the_same_sum():
    frames, states = held_charts("swap", "swap", ROWS, 8 * MIB)
    totals = [[sum(column) for column in zip(*(layer.values for layer in chart.layers), strict=True)]
              for chart in (frames, states)]
    assert totals[0] == totals[1] == [5.0, 7.0]


def test_what_must_be_kept_lies_below():
    textures = [layer.texture == SOLID for layer in held_charts("swap", "swap", ROWS, MIB)[1].layers]
    assert textures == sorted(textures, reverse=True)


def test_of_many_guests_the_smallest_are_one():
    many = [(0.0, held({f"g{n:02}": {"S": 256 * (n + 1)} for n in range(20)}))] * 2
    chart = held_charts("swap", "swap", many, MIB)[0]
    assert owners_in(many) == [f"g{n}" for n in range(14, 20)]
    assert len(chart.layers) == MOST_OWNERS
    assert (chart.layers[-1].owner, chart.layers[-1].values[0]) == ("14 others", sum(range(1, 15)))
