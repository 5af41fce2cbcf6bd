"""Migration at the door: who may ask what, what a pause is, and that whoever goes, at whatever step, undoes it."""

import os
import threading
from contextlib import ExitStack
from time import monotonic

import numpy as np
import pytest
from peers import ask

from guests import Guest, TmemRefused
from guests.pool import Pool
from hypervisor import migration
from hypervisor.toolstack import connection, migrate
from hypervisor.toolstack.migrate import Session
from shm import door
from shm.abi import ABI_VERSION, PAGE_SIZE, Status
from shm.errors import HypervisorGone, UsageProblem

OID = (1, 2, 3)
COUNT = 100


def page(number):
    return np.full(PAGE_SIZE // 8, number, np.uint64).view(np.uint8)


def picture(running):
    """All that an undone session must leave as it was."""
    def look():
        machine = running.machine
        return ([(pool.owner, pool.pages, pool.uuid) for pool in machine.store.pools.all()],
                [(client.number, client.frozen, client.changed, client.replacing_flushes)
                 for client in machine.store.clients.all()],
                machine.heap.in_use, dict(machine.migration.waiting), machine.orders.audit({})["problems"])
    return running.inside(look)


@pytest.fixture
def source(machine):
    return machine(budget=1024, scheme="tmem", swap=0)


@pytest.fixture
def target(machine):
    return machine(budget=1024, scheme="tmem", swap=0)


@pytest.fixture
def guest(source):
    return source.guest("mine", pages=4, max_pages=400)


@pytest.fixture
def pool(guest):
    made = guest.tmem.new_pool(persistent=True)
    for number in range(COUNT):
        assert made.put(OID, number, page(number))
    return made


@pytest.fixture
def session():
    """Open sessions that are closed at the end."""
    with ExitStack() as held:
        yield lambda running: held.enter_context(Session(running.cluster))


def drop(running, name="mine"):
    assert running.inside(lambda: running.machine.migration.drop(name))


def pump(from_, to=None):
    """Carry the stream to its end."""
    done = False
    while not done:
        answer = from_.ask("tmem-save-next")
        done = answer["done"]
        if to is not None:
            to.ask("tmem-restore-next", data=answer["data"])
    return answer


def held_by(pool, count=COUNT):
    return [int(np.frombuffer(pool.get(OID, number), np.uint64)[0]) for number in range(count)]


# A whole migration

def test_a_guest_goes_on_where_its_tmem_is(source, target, guest, pool):
    ephemeral = guest.tmem.new_pool(persistent=False)
    assert ephemeral.put(OID, 0, page(7))
    report = migrate.migrate(source.cluster, "mine", target.cluster)
    assert (report["pages"], report["persistent"], report["resent"]) == (COUNT, COUNT, 0)
    assert report["bytes"] > COUNT * PAGE_SIZE and 0 < report["downtime_s"] <= report["seconds"]
    assert source.inside(lambda: source.machine.heap.in_use) == 0
    assert held_by(pool) == list(range(COUNT))
    assert ephemeral.get(OID, 0) is None, "ephemeral pools come empty"
    assert ephemeral.put(OID, 0, page(8)) and ephemeral.get(OID, 0) is not None
    pool.put_many(OID, range(COUNT), np.stack([page(500 + number) for number in range(COUNT)]))
    assert held_by(pool) == list(range(500, 500 + COUNT))
    assert target.inside(lambda: target.machine.migration.waiting) == {}
    assert target.domain("mine").pages == 1


def test_its_memory_stays_where_it_is(source, target, guest, pool):
    guest.memory.write(0, bytes(page(3)))
    migrate.migrate(source.cluster, "mine", target.cluster)
    assert held_by(pool, 1) == [0]
    assert guest.memory.read(0) == bytes(page(3))
    assert source.domain("mine").pages == 4


def test_a_list_says_where_it_went_and_who_has_not_come(source, target, guest, pool):
    migrate.migrate(source.cluster, "mine", target.cluster)
    [there] = source.inside(lambda: source.machine.orders.list({}))["guests"]
    assert there["moved"] == target.cluster
    assert target.inside(lambda: target.machine.orders.list({}))["waiting"] == ["mine"]
    assert held_by(pool, 1) == [0]
    assert target.inside(lambda: target.machine.orders.list({}))["waiting"] == []


def test_what_it_may_hold_goes_with_it(source, target, guest, pool):
    migrate.migrate(source.cluster, "mine", target.cluster)
    allowed = target.inside(lambda: target.machine.allowance(next(iter(target.machine.migration.waiting)))[0])
    assert allowed == 400 - COUNT
    assert held_by(pool, 1) == [0]
    assert target.inside(lambda: target.machine.allowance(target.machine.store.clients.all()[0].number)[0]) == allowed


def test_from_cluster_to_cluster(machine, source, target, guest, pool):
    third = machine(budget=1024, scheme="tmem", swap=0)
    migrate.migrate(source.cluster, "mine", target.cluster)
    pool.put(OID, 0, page(900))
    migrate.migrate(target.cluster, "mine", third.cluster)
    pool.put(OID, 1, page(901))
    assert held_by(pool) == [900, 901, *range(2, COUNT)]
    assert target.inside(lambda: list(target.machine.domains)) == [], "it has left the one between"
    guest.close()
    third.until(lambda: not third.machine.domains)


def test_moved_on_twice_before_it_asks(machine, source, target, guest, pool):
    """Nobody has attached in the one between: the guest cannot have been named there, so it stays."""
    third = machine(budget=1024, scheme="tmem", swap=0)
    migrate.migrate(source.cluster, "mine", target.cluster)
    with pytest.raises(UsageProblem, match="no guest 'mine' is attached"):
        migrate.migrate(target.cluster, "mine", third.cluster)
    assert held_by(pool) == list(range(COUNT))


def test_a_guest_whose_new_home_is_gone_is_told(source, target, guest, pool):
    migrate.migrate(source.cluster, "mine", target.cluster)
    drop(target)
    with pytest.raises(TmemRefused, match="no guest waits"):
        pool.get(OID, 0)


@pytest.mark.parametrize("mode", ["stop", "live", "track"])
def test_every_mode_moves_everything(source, target, guest, pool, mode):
    migrate.migrate(source.cluster, "mine", target.cluster, mode)
    assert held_by(pool) == list(range(COUNT))
    assert pool.put(OID, 0, page(5)), "not frozen there"


def in_use(running):
    return running.inside(lambda: running.machine.heap.in_use)


class Worker:
    """A guest that puts, replaces and flushes persistent pages all the time in a thread, and what it must find then."""

    HANDLES = 300

    def __init__(self, pool):
        self.pool, self.model, self.operations = pool, {}, 0
        self.rng, self.halt, self.failures = np.random.default_rng(1), threading.Event(), []
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.halt.is_set():
                self.work()
                self.operations += 1
        except BaseException as error:
            self.failures.append(error)

    def work(self):
        many = self.rng.random() < 0.3
        indexes = np.unique(self.rng.integers(0, self.HANDLES, 16 if many else 1))
        values = self.rng.integers(0, 1 << 40, len(indexes))
        if self.rng.random() < 0.2:
            self.pool.flush_many(OID, indexes)
            for index in indexes.tolist():
                self.model.pop(index, None)
            return
        pages = np.stack([page(value) for value in values])
        stored = self.pool.put_many(OID, indexes, pages) if many else [self.pool.put(OID, int(indexes[0]), pages[0])]
        for index, value, is_stored in zip(indexes.tolist(), values.tolist(), stored, strict=True):
            self.model.pop(index, None)
            if is_stored:
                self.model[index] = value

    def wait_for(self, operations):
        """Wait until so many more are done."""
        until, deadline = self.operations + operations, monotonic() + 20
        while self.operations < until and not self.failures:
            assert monotonic() < deadline, "the guest does not get on"
            self.halt.wait(0.001)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.halt.set()
        self.thread.join(30)
        assert self.failures == []

    def found(self):
        hits, pages = self.pool.get_many(OID, range(self.HANDLES))
        assert (pages.view(np.uint64) == pages.view(np.uint64)[:, :1]).all(), "torn page"
        return {index: int(pages[index].view(np.uint64)[0]) for index in np.flatnonzero(hits).tolist()}


def test_under_load_every_handle_has_its_latest_data(source, target, guest, monkeypatch):
    """The guest gets on between any two orders; after the move each handle holds what it put last, and no other."""
    paused = []

    class Slow(Session):
        def ask(self, call, **more):
            if call == "tmem-save-next" and not paused:
                worker.wait_for(10)
            answer = super().ask(call, **more)
            paused.extend([True] if answer.get("paused") else [])
            return answer

    monkeypatch.setattr(migrate, "Session", Slow)
    with Worker(guest.tmem.new_pool(persistent=True)) as worker:
        worker.wait_for(500)
        report = migrate.migrate(source.cluster, "mine", target.cluster)
        worker.wait_for(100)
    assert report["resent"] > 0 and report["gone"] > 0 and report["rounds"] > 0, "else this test tests nothing"
    assert worker.found() == worker.model
    assert source.inside(lambda: source.machine.heap.in_use) == 0


@pytest.mark.parametrize("mode", ["track", "live", "stop"])
def test_under_load_from_cluster_to_cluster(machine, source, guest, mode):
    """As often as it is moved on, in every mode; a frozen guest's puts may be refused, and then nothing is stored."""
    with Worker(guest.tmem.new_pool(persistent=True)) as worker:
        worker.wait_for(300)
        for _ in range(3):
            there = machine(budget=1024, scheme="tmem", swap=0)
            migrate.migrate(source.cluster, "mine", there.cluster, mode)
            worker.wait_for(100)                             # it has attached there, and can be named
            assert in_use(source) == 0
            source = there
    assert worker.found() == worker.model


# The pause

def test_a_paused_guests_request_stays_in_its_queue(source, guest, pool, session):
    from_ = session(source)
    from_.ask("tmem-save-begin", guest="mine")
    assert pump(from_)["paused"]
    answers = []
    asking = threading.Thread(target=lambda: answers.append(pool.get(OID, 5)))
    asking.start()
    source.until(lambda: source.machine.domains[0].queues.requests.current_messages == 1)
    assert answers == []
    from_.ask("tmem-save-end")
    asking.join(20)
    assert answers == [bytes(page(5))]


def test_a_pause_has_an_end(source, target, guest, pool, session, monkeypatch):
    """Then the guest goes on, the source keeps everything, and the copy there is nobody's."""
    monkeypatch.setattr(migration, "PAUSE_LIMIT_S", 0.2)
    before, from_, to = picture(source), session(source), session(target)
    from_.ask("tmem-save-begin", guest="mine")
    to.ask("tmem-restore-begin")
    pump(from_, to)
    token = to.ask("tmem-restore-commit")["token"]
    assert pool.get(OID, 1) == bytes(page(1)), "served when the time is over"
    with pytest.raises(UsageProblem, match="no save is under way"):
        from_.ask("tmem-save-end", moved=target.cluster)
    assert to.ask("tmem-restore-drop", token=token) == {"guest": "mine"}
    assert picture(source) == before


def test_what_a_save_must_remember_has_a_bound(source, guest, pool, session, monkeypatch):
    monkeypatch.setattr(migration, "CHANGES_LIMIT", 50)
    before, from_ = picture(source), session(source)
    from_.ask("tmem-save-begin", guest="mine")
    pool.flush_many(OID, range(1000, 1050))                  # nothing is there: nothing to remember
    pool.put_many(OID, range(51), np.stack([page(number) for number in range(51)]))
    source.until(lambda: not source.machine.migration._leaving)
    with pytest.raises(UsageProblem, match="or changes more than 50 pages"):
        from_.ask("tmem-save-next")
    assert picture(source) == before


def test_a_paused_guest_may_leave(source, guest, pool, session):
    from_ = session(source)
    from_.ask("tmem-save-begin", guest="mine")
    pump(from_)
    guest.close()
    with pytest.raises(UsageProblem, match="'mine' is gone"):
        from_.ask("tmem-save-end", moved="elsewhere")
    source.guest("mine").ping()


# Whoever goes, at whatever step

STEPS = ["begun", "some sent", "all sent", "committed"]


def go_to(step, from_, to):
    """Carry a migration as far as `step`."""
    from_.ask("tmem-save-begin", guest="mine")
    to.ask("tmem-restore-begin")
    if step == "some sent":
        to.ask("tmem-restore-next", data=from_.ask("tmem-save-next")["data"])
    elif step != "begun":
        pump(from_, to)
    if step == "committed":
        to.ask("tmem-restore-commit")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mode_is_live", [False, True])
def test_a_toolstack_that_goes_leaves_all_as_it_was(source, target, guest, pool, step, mode_is_live):
    before, there = picture(source), picture(target)
    with Session(source.cluster) as from_, Session(target.cluster) as to:
        go_to(step, from_, to)
    if step == "committed":
        drop(target)
    source.until(lambda: not source.machine.migration._leaving)
    target.until(lambda: not target.machine.migration._coming)
    assert (picture(source), picture(target)) == (before, there)
    assert held_by(pool) == list(range(COUNT))


@pytest.mark.parametrize("step", STEPS)
def test_a_guest_that_goes_leaves_nothing_on_either_side(source, target, guest, pool, session, step):
    there, from_, to = picture(target), session(source), session(target)
    go_to(step, from_, to)
    guest.close()
    with pytest.raises(UsageProblem, match="'mine' is gone"):
        from_.ask("tmem-save-next")
    to.link.close()
    if step == "committed":
        drop(target)
    target.until(lambda: not target.machine.migration._coming)
    assert picture(target) == there
    assert source.inside(lambda: source.machine.heap.in_use) == 0


def test_migrate_drops_the_copy_of_a_guest_that_was_kept(source, target, guest, pool):
    """The operator empties the guest between its last page and the word that it moved."""
    there = picture(target)

    class Interfering(Session):
        def ask(self, call, **more):
            if call == "tmem-save-end":
                source.inside(lambda: source.machine.store.membership.empty(0))
            return super().ask(call, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "Session", Interfering)
        with pytest.raises(UsageProblem, match="not all that it has"):
            migrate.migrate(source.cluster, "mine", target.cluster)
    target.until(lambda: not target.machine.migration._coming)
    assert picture(target) == there
    assert guest.tmem.new_pool(persistent=True).put(OID, 0, page(1)), "it runs on where it was"


def test_a_target_without_room_leaves_all_as_it_was(machine, source, guest, pool):
    small = machine(budget=64, scheme="tmem", swap=0)
    before, there = picture(source), picture(small)
    with pytest.raises(UsageProblem, match="no room here: RESERVED"):
        migrate.migrate(source.cluster, "mine", small.cluster)
    source.until(lambda: not source.machine.migration._leaving)
    assert (picture(source), picture(small)) == (before, there)
    assert held_by(pool) == list(range(COUNT))


def test_a_hypervisor_that_stops_ends_what_was_under_way(source, target, guest, pool, session):
    from_, to = session(source), session(target)
    go_to("all sent", from_, to)
    target.inside(target.machine.migration.close)
    assert target.inside(lambda: (target.machine.heap.in_use, target.machine.migration.waiting)) == (0, {})
    with pytest.raises(UsageProblem, match="no restore"):
        to.ask("tmem-restore-commit")
    source.inside(source.machine.migration.close)
    assert held_by(pool) == list(range(COUNT))


# What is refused

def test_what_cannot_be_asked_of_a_source(source, guest, pool, session):
    from_ = session(source)
    for message, line in [
            ({}, "no guest None is attached; there are: mine"), ({"guest": "other"}, "no guest 'other' is attached"),
            ({"guest": "mine", "mode": "fast"}, "'fast' is no way to save; allowed: stop, live, track"),
            ({"guest": "mine", "mode": ["track"]}, "is no way to save")]:
        with pytest.raises(UsageProblem, match=line):
            from_.ask("tmem-save-begin", **message)
    for call in ("tmem-save-next", "tmem-save-end"):
        with pytest.raises(UsageProblem, match="no save is under way"):
            from_.ask(call)
    from_.ask("tmem-save-begin", guest="mine")
    for room in (1 << 17, -1, "much", True, None):
        with pytest.raises(UsageProblem, match=r"room|ENOMEM"):
            from_.ask("tmem-save-next", room=room)
    with pytest.raises(UsageProblem, match="under way on this connection"):
        from_.ask("tmem-restore-begin")
    with pytest.raises(UsageProblem, match="being saved already"):
        session(source).ask("tmem-save-begin", guest="mine")
    with pytest.raises(UsageProblem, match="not all that it has"):
        from_.ask("tmem-save-end", moved="elsewhere")
    with pytest.raises(UsageProblem, match="no save is under way"):
        from_.ask("tmem-save-end")


def test_what_cannot_be_asked_of_a_target(source, target, guest, pool, session):
    to = session(target)
    for call in ("tmem-restore-next", "tmem-restore-commit"):
        with pytest.raises(UsageProblem, match="no restore is under way"):
            to.ask(call)
    for token in (None, "0" * 32, 5, b"x"):
        with pytest.raises(UsageProblem, match="token"):
            to.ask("tmem-restore-drop", token=token)
    for data in (None, "text", 5):
        to.ask("tmem-restore-begin")
        with pytest.raises(UsageProblem, match="data is bytes"):
            to.ask("tmem-restore-next", data=data)
        to.link.close()
        to = session(target)
    to.ask("tmem-restore-begin")
    with pytest.raises(UsageProblem, match="damaged at byte 0"):
        to.ask("tmem-restore-next", data=b"junk")
    to.ask("tmem-restore-begin")
    with pytest.raises(UsageProblem, match="cut short"):
        to.ask("tmem-restore-commit")


def test_a_cluster_without_tmem(machine, session):
    bare = machine(scheme="swap")
    bare.guest("mine")
    for call in ("tmem-save-begin", "tmem-restore-begin"):
        with pytest.raises(UsageProblem, match="has no tmem"):
            session(bare).ask(call, guest="mine")


def test_nothing_to_move(source, target, guest):
    with pytest.raises(UsageProblem, match="nothing to save"):
        migrate.migrate(source.cluster, "mine", target.cluster)
    assert target.inside(lambda: target.machine.migration.waiting) == {}


def test_a_guest_of_that_name_is_there_already(source, target, guest, pool):
    target.guest("mine")
    with pytest.raises(UsageProblem, match="'mine' is here already"):
        migrate.migrate(source.cluster, "mine", target.cluster)
    assert held_by(pool) == list(range(COUNT))


def test_a_name_that_waits_is_taken(source, target, guest, pool):
    migrate.migrate(source.cluster, "mine", target.cluster)
    with pytest.raises(UsageProblem, match="'mine' is attached already"):
        target.guest("mine")
    with pytest.raises(UsageProblem, match=r"in cluster .* already"):
        migrate.migrate(source.cluster, "mine", target.cluster)
    assert held_by(pool, 1) == [0]


def test_a_guests_own_connection_begins_nothing(source, guest):
    with pytest.raises(UsageProblem, match="is a guest's"):
        raise UsageProblem(ask(guest._link, {"call": "tmem-restore-begin"})[0]["error"])


def test_a_connection_that_becomes_a_guests_ends_what_it_began(source, guest, pool, session):
    from_ = session(source)
    from_.ask("tmem-save-begin", guest="mine", mode="stop")
    answer, fds = ask(from_.link, {"call": "attach", "abi": ABI_VERSION, "name": "late", "pages": 1, "max_pages": 1,
                                   "weight": 0})
    for fd in fds:
        os.close(fd)
    assert answer["ok"]
    assert not source.inside(lambda: source.machine.store.clients.get(0).frozen)


def test_where_it_is_is_told_to_who_knows_its_stem(source, guest, pool):
    for stem in (guest.stem, "nobody", None, 5):
        with door.connect(source.cluster) as link:
            assert "has moved away" in ask(link, {"call": "moved", "stem": stem})[0]["error"]


# Those that wait

def test_a_saved_guest_is_taken_up_by_its_token(source, target, guest, pool, tmp_path):
    with (tmp_path / "saved").open("wb") as out:
        report = migrate.save(source.cluster, "mine", out)
    assert report["pages"] == COUNT
    assert held_by(pool) == list(range(COUNT)), "it keeps what was saved"
    with (tmp_path / "saved").open("rb") as stream:
        restored = migrate.restore(target.cluster, stream)
    with pytest.raises(UsageProblem, match="no guest waits here"):
        Guest.connect(target.cluster, "mine", "64KiB", resume="0" * 32)
    with Guest.connect(target.cluster, "again", "64KiB", resume=restored["token"]) as taken:
        assert held_by(Pool(taken.tmem, pool.number, persistent=True)) == list(range(COUNT))
        assert target.domain("again").max_pages == 400
        with pytest.raises(UsageProblem, match="no guest waits here"):
            Guest.connect(target.cluster, "more", "64KiB", resume=restored["token"])


def test_a_guest_that_leaves_before_it_has_followed_leaves_nothing(source, target, guest, pool):
    there = picture(target)
    migrate.migrate(source.cluster, "mine", target.cluster)
    guest.close()
    target.until(lambda: not target.machine.migration.waiting)
    assert picture(target) == there


def test_a_guest_that_has_followed_is_not_dropped_when_its_old_hypervisor_ends(source, target, guest, pool):
    migrate.migrate(source.cluster, "mine", target.cluster)
    assert held_by(pool, 1) == [0]
    source.inside(source.bury_guests)
    assert held_by(pool) == list(range(COUNT))


def test_a_guest_that_leaves_when_its_new_hypervisor_is_gone_is_nobodys_trouble(source, target, guest, pool):
    migrate.migrate(source.cluster, "mine", target.cluster)
    drop(target)
    source.domain("mine").moved["cluster"] = "gone"
    guest.close()
    assert source.guest("next", pages=1).tmem.new_pool(persistent=False).put(OID, 0, page(1))


def test_orders_about_a_guest_go_where_its_tmem_is(source, target, guest, pool):
    """At the old place they would be obeyed, and do nothing."""
    migrate.migrate(source.cluster, "mine", target.cluster)
    for order in ("freeze", "thaw", "destroy", "set"):
        with pytest.raises(UsageProblem, match=f"is in cluster '{target.cluster}' now: give the order there"):
            connection.call(source.cluster, {"call": f"tmem-{order}", "guest": "mine", "weight": 7})
    assert connection.call(source.cluster, {"call": "tmem-freeze", "all": True}) == {"frozen": []}
    assert held_by(pool, 1) == [0]
    assert connection.call(target.cluster, {"call": "tmem-freeze", "guest": "mine"}) == {"frozen": ["mine"]}


def test_a_target_that_is_frozen_says_so(source, target, guest, pool):
    there = picture(target)
    connection.call(target.cluster, {"call": "tmem-freeze", "all": True})
    with pytest.raises(UsageProblem, match="all guests are frozen here; thaw them first"):
        migrate.migrate(source.cluster, "mine", target.cluster)
    target.until(lambda: not target.machine.migration._coming)
    assert picture(target) == there
    assert held_by(pool) == list(range(COUNT))


def test_one_that_waits_can_be_dropped(source, target, guest, pool, session):
    from_, to = session(source), session(target)
    go_to("committed", from_, to)
    assert target.inside(lambda: target.machine.migration.drop("other")) is False
    drop(target)
    assert target.inside(lambda: target.machine.heap.in_use) == 0


def test_one_that_is_on_its_way_is_nobodys_yet(source, target, guest, pool, session):
    from_, to = session(source), session(target)
    go_to("some sent", from_, to)
    assert target.inside(lambda: target.machine.migration.drop("mine")) is False
    token = target.inside(lambda: next(iter(target.machine.migration.waiting.values())).token)
    with pytest.raises(UsageProblem, match="no guest waits"):
        Guest.connect(target.cluster, "mine", "64KiB", resume=token)


def test_a_source_that_vanishes_leaves_the_copy_and_says_so(source, target, guest, pool):
    class Vanishing(Session):
        def ask(self, call, **more):
            if call == "tmem-save-end":
                self.link.shutdown(2)
            return super().ask(call, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "Session", Vanishing)
        with pytest.raises(HypervisorGone, match="tmem-destroy mine"):
            migrate.migrate(source.cluster, "mine", target.cluster)
    drop(target)
    assert held_by(pool) == list(range(COUNT))


def test_a_pool_is_destroyed_after_a_migration_not_during_one(source, target, guest, pool, session):
    from_ = session(source)
    from_.ask("tmem-save-begin", guest="mine")
    with pytest.raises(TmemRefused, match="being migrated"):
        pool.destroy()
    from_.ask("tmem-save-end")
    pool.destroy()
    assert source.inside(lambda: source.machine.store.destroy_pool(0, pool.number)) == Status.NO
