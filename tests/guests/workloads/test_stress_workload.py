"""The random guest: right on every host that keeps the rules, and it finds one that does not."""

from typing import Any

import numpy as np
import pytest

from guests.workloads.proof import WrongContent
from shm.counters import Count
from shm.pagestate import Essa, State

SMALL = {"files": 96, "anonymous": 96, "rebuildable": 32, "ephemeral": 64, "persistent": 32, "private": 8}
ALONE = {kind: 0 for kind in SMALL}
HOSTS = [
    {"pages": 400},
    {"pages": 128},
    {"pages": 128, "mischief": 0.1, "ephemeral": 40, "refuse": 0.2, "forget": 0.1},
    {"pages": 128, "features": ("hint-unused", "hint-volatile"), "pools": 0},
    {"pages": 128, "features": (), "pools": 0, "mischief": 0.1},
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_host_that_keeps_the_rules_passes(prepare, host: dict[str, Any], seed: int) -> None:
    run = prepare("stress", SMALL, seed=seed, **host)
    run.steps(1200)
    run.workload.finish()
    run.kernel.check()
    assert (run.count(Count.OPERATIONS), run.count(Count.MISMATCHES)) == (1200, 0)
    assert run.count(Count.PAGES_VERIFIED) > 1000


@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_works_alone(prepare, kind: str) -> None:
    run = prepare("stress", ALONE | {kind: 64}, pages=200, mischief=0.1)
    run.steps(400)
    run.workload.finish()
    run.kernel.check()
    assert run.count(Count.PAGES_VERIFIED) > 40


def test_no_kind_at_all_is_no_work(prepare) -> None:
    run = prepare("stress", ALONE)
    assert not run.workload.step()


def calls(prepare, host: dict[str, Any], seed: int) -> list[Any]:
    run = prepare("stress", SMALL | {"private": 0}, seed=seed, record=True, **host)
    run.steps(500)
    return run.log


def test_the_same_seed_is_the_same_work_on_any_host(prepare) -> None:
    first = calls(prepare, HOSTS[0], 5)
    assert all(calls(prepare, host, 5) == first for host in HOSTS[1:])
    assert calls(prepare, HOSTS[0], 6) != first


@pytest.mark.parametrize("kind", ["files", "anonymous", "rebuildable"])
def test_a_corrupted_page_is_found(prepare, kind: str) -> None:
    run = prepare("stress", ALONE | {kind: 64}, pages=200)
    run.steps(60)
    run.guest.corrupt()
    with pytest.raises(WrongContent):
        run.workload.finish()
    assert run.count(Count.MISMATCHES) > 0


@pytest.mark.parametrize("kind", ["ephemeral", "persistent"])
def test_a_pool_that_gives_other_bytes_is_found(prepare, kind: str) -> None:
    run = prepare("stress", ALONE | {kind: 64}, pages=64)
    run.steps(100)
    for pool in run.guest.tmem.pools:
        pool.pages = type(pool.pages)((handle, page[:-1] + b"\0") for handle, page in pool.pages.items())
    with pytest.raises(WrongContent, match=r"wrong page: .* pool, object"):
        run.workload.finish()


def test_a_persistent_page_that_is_lost_is_found(prepare) -> None:
    run = prepare("stress", ALONE | {"persistent": 64}, pages=64)
    run.steps(100)
    run.guest.tmem.pools[-1].pages.popitem()
    with pytest.raises(WrongContent, match=r"persistent pool: object .* was put and is a miss"):
        run.workload.finish()


def test_a_page_that_was_flushed_and_comes_back_is_found(prepare) -> None:
    run = prepare("stress", ALONE | {"ephemeral": 64}, pages=64)
    run.guest.tmem.pools[-1].flush = lambda oid, index: None
    with pytest.raises(WrongContent, match=r"is a hit, and nothing is there|wrong page: ephemeral"):
        run.steps(3000)


def test_a_page_that_is_had_twice_from_an_ephemeral_pool_is_found(prepare) -> None:
    run = prepare("stress", ALONE | {"ephemeral": 64}, pages=64)
    pool = run.guest.tmem.pools[-1]
    pool.get = lambda oid, index: pool.pages.get((oid, index))
    with pytest.raises(WrongContent, match=r"ephemeral pool: object [0-9], index [0-9]+ is a hit, and nothing"):
        run.steps(3000)


# -- private pages: a host that breaks one promise each

def private(prepare, **host: Any):
    return prepare("stress", ALONE | {"private": 24}, pages=64, **host)


def test_the_host_may_take_private_pages_by_the_rules(prepare) -> None:
    run = private(prepare, mischief=0.3)
    run.steps(4000)
    run.workload.finish()
    assert run.count(Count.DISCARD_FAULTS) > 50


def lose_stable(run) -> None:
    """Discard what is stable."""
    for gfn, state in enumerate(run.guest.states):
        if state == State.Sr:
            run.guest.states[gfn] = State.Vz


def zero_stable(run) -> None:
    """Read zero where something was written."""
    for gfn, state in enumerate(run.guest.states):
        if state == State.Sr:
            run.guest.states[gfn] = State.Sz


def resurrect(run) -> None:
    """Bring a discarded page back as though nothing had been."""
    for gfn, state in enumerate(run.guest.states):
        if state == State.Vz:
            run.guest.states[gfn] = State.Vr


def scribble(run) -> None:
    run.guest.memory.rows[:, 5] ^= 1


def forget_unused(run) -> None:
    """Let a page be used that its guest gave up."""
    for gfn, state in enumerate(run.guest.states):
        if state in (State.Ur, State.Uz):
            run.guest.states[gfn] = State.Sr


def discard_dirty(run) -> None:
    """Discard what is potentially volatile and was changed (R16)."""
    for gfn, state in enumerate(run.guest.states):
        if state == State.Pr and run.guest.memory.changed[gfn]:
            run.guest.states[gfn] = State.Vz


@pytest.mark.parametrize("wrong", [lose_stable, zero_stable, resurrect, scribble, forget_unused, discard_dirty])
def test_a_host_that_breaks_a_promise_is_found(prepare, wrong) -> None:
    run = private(prepare, mischief=0.05, features=("hint-unused",), pools=0)

    def work() -> None:
        for _ in range(100):
            run.steps(20)
            wrong(run)

    with pytest.raises(WrongContent):
        work()
    assert run.count(Count.MISMATCHES) == 1


def test_a_hint_that_is_not_carried_out_is_found(prepare) -> None:
    """Dropping wishes costs nothing but cost; a make stable that is dropped loses data later, and is found."""
    with pytest.raises(WrongContent, match=r"ESSA says|addressing exception|discard fault"):
        private(prepare, mischief=0.2, drop={Essa.SET_STABLE: 0.3}).steps(3000)


def test_private_pages_are_given_back(prepare) -> None:
    run = private(prepare)
    free = run.kernel.free_pages
    run.steps(300)
    run.workload.finish()
    assert run.kernel.free_pages == free + 24
    run.kernel.check()
    assert np.count_nonzero(run.kernel.core.pages.array) == 0
