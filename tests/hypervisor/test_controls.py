"""The operator's orders about tmem, through the door of a running hypervisor."""

import numpy as np
import pytest

from hypervisor.controls import GUESTS_A_MESSAGE
from hypervisor.migration import Waiting
from hypervisor.toolstack.connection import call
from shm import door
from shm.abi import PAGE_SIZE, TMEM_VERSION, VERSION_SHIFT
from shm.errors import TmemRefused, UsageProblem

SECRET = "00000000000000070000000000000005"
PAGE = b"x" * PAGE_SIZE
EPHEMERAL = TMEM_VERSION << VERSION_SHIFT


def ask(running, order, **more):
    return call(running.cluster, {"call": f"tmem-{order}"} | more)


@pytest.fixture
def running(machine):
    return machine(budget=512, scheme="tmem", swap=0)


@pytest.fixture
def bank(running):
    return running.guest("bank", pages=16, max_pages=64, weight=0)


def test_freeze_holds_for_a_guest_that_has_not_used_tmem(running, bank):
    assert ask(running, "freeze", guest="bank") == {"frozen": ["bank"]}
    pool = bank.tmem.new_pool(persistent=False)
    assert not pool.put(1, 1, PAGE)
    assert ask(running, "thaw", guest="bank") == {"thawed": ["bank"], "still_frozen": False}
    assert pool.put(1, 1, PAGE)


def test_freeze_all_holds_for_those_that_come(running, bank):
    assert ask(running, "freeze", all=True) == {"frozen": ["bank"]}
    late = running.guest("late")
    assert not late.tmem.new_pool(persistent=False).put(1, 1, PAGE)
    assert ask(running, "thaw", guest="bank")["still_frozen"]
    assert not bank.tmem.new_pool(persistent=False).put(1, 1, PAGE)
    assert ask(running, "thaw", all=True)["still_frozen"] is False
    assert bank.tmem.new_pool(persistent=False).put(1, 1, PAGE)


ABOUT_A_GUEST = [("freeze", {}), ("thaw", {}), ("destroy", {}), ("set", {"weight": 1}),
                 ("shared-auth", {"secret": SECRET})]


@pytest.mark.parametrize(("order", "more"), ABOUT_A_GUEST)
@pytest.mark.parametrize("name", ["nobody", None, 3, ["bank"], "x" * 1000], ids=repr)
def test_unknown_guest_is_one_line_with_those_there_are(running, bank, order, more, name):
    with pytest.raises(UsageProblem) as raised:
        ask(running, order, guest=name, **more)
    said = str(raised.value)
    assert said.startswith("no guest ")
    assert said.endswith(" is attached; there are: bank")
    assert len(said) < 120


def test_unknown_guest_where_there_are_none_and_where_there_are_many(running):
    with pytest.raises(UsageProblem, match=r"there are none$"):
        ask(running, "freeze", guest="bank")
    for n in range(22):
        running.guest(f"g{n:02}", pages=1)
    with pytest.raises(UsageProblem, match=r"there are: g00, g01, .*, g19 and 2 more$"):
        ask(running, "freeze", guest="bank")


@pytest.mark.parametrize("settings", [
    {"weight": -1}, {"weight": "1"}, {"weight": 1 << 17}, {"weight": True}, {"cap": -1}, {"cap": 1.0}, {"form": "zip"},
    {"form": ["raw"]}, {"compress": 2}, {"form": "raw", "compress": 1}, {}], ids=repr)
def test_settings_that_cannot_be_change_nothing(running, bank, settings):
    with pytest.raises(UsageProblem):
        ask(running, "set", guest="bank", **({"weight": 9} | settings if settings else {}))
    [client] = running.machine.store.clients.all()
    assert (client.weight, client.cap, client.form.name) == (0, 0, "RAW")


def test_settings_of_one_and_of_all(running, bank):
    running.guest("late", weight=0)
    assert ask(running, "set", guest="bank", weight=3, cap=7, form="lz4") == {
        "guests": [{"name": "bank", "weight": 3, "cap": 7, "form": "lz4"}]}
    assert ask(running, "set", all=True, compress=0, weight=2) == {
        "guests": [{"name": "bank", "weight": 2, "cap": 7, "form": "raw"},
                   {"name": "late", "weight": 2, "cap": 0, "form": "raw"}]}


def test_cap_of_a_guest_that_has_not_used_tmem_holds(running, bank):
    ask(running, "set", guest="bank", cap=2)
    pool = bank.tmem.new_pool(persistent=True)
    assert [pool.put(1, index, PAGE) for index in range(3)] == [True, True, False]


def test_compress_does_not_go_with_dedup(running, bank):
    ask(running, "set", guest="bank", form="dedup")
    with pytest.raises(UsageProblem, match="guest 'bank' are deduplicated"):
        ask(running, "set", guest="bank", compress=1)


def test_destroy_drops_pools_and_lets_new_ones_be_made(running, bank):
    pools = [bank.tmem.new_pool(persistent=kind) for kind in (False, True)]
    for pool in pools:
        assert pool.put(1, 1, PAGE)
    assert ask(running, "destroy", guest="bank") == {"pools": 2, "pages": 2}
    assert ask(running, "list")["guests"][0]["pools"] == []
    assert bank.tmem.new_pool(persistent=False).number == 0


def test_destroy_waits_for_a_save(running, bank):
    bank.tmem.new_pool(persistent=True).put(1, 1, PAGE)
    client = running.machine.store.clients.all()[0]
    running.inside(lambda: setattr(client, "changed", {}))
    with pytest.raises(UsageProblem, match="guest 'bank' is being saved"):
        ask(running, "destroy", guest="bank")
    running.inside(lambda: setattr(client, "changed", None))
    assert ask(running, "destroy", guest="bank") == {"pools": 1, "pages": 1}


def test_destroy_drops_a_guest_that_is_waited_for(running, bank):
    """Its name is in the list, though it is not attached."""
    machine = running.machine

    def wait_for_one():
        machine.migration.waiting[77] = Waiting(77, "late", 16, "t", committed=True)
        machine.store.create_pool(77, EPHEMERAL)
        machine.store.put(77, 0, (1, 2, 3), 0, np.frombuffer(PAGE, np.uint8))
    running.inside(wait_for_one)
    assert [guest["name"] for guest in ask(running, "list")["guests"]] == ["late"]
    assert ask(running, "destroy", guest="late") == {"pools": 1, "pages": 1}
    assert ask(running, "list")["guests"] == []
    with pytest.raises(UsageProblem, match="no guest 'late'"):
        ask(running, "destroy", guest="late")


def test_flush_gives_memory_back_at_once(running, bank):
    pool = bank.tmem.new_pool(persistent=False)
    for index in range(20):
        assert pool.put(1, index, PAGE)
    running.inside(lambda: running.machine.heap.trim(running.machine.heap.spare))
    used = running.machine.ledger.used
    assert ask(running, "flush", kib=37) == {"kib": 40, "evicted": 10}
    assert running.machine.ledger.used == used - 10


@pytest.mark.parametrize("kib", [0, -4, "4", None, 1.5, True, 1 << 60], ids=repr)
def test_flush_of_what_is_no_size(running, kib):
    with pytest.raises(UsageProblem, match=r"^kib .* is not a number from 1 to "):
        ask(running, "flush", kib=kib)


def test_freeable(running, bank):
    pool = bank.tmem.new_pool(persistent=False)
    for index in range(256):
        assert pool.put(1, index, PAGE)
    assert ask(running, "freeable") == {"freeable_mib": 1}


def test_shared_pool_is_joined_once_allowed_and_not_when_denied(running, bank):
    secret = int(SECRET, 16)
    with pytest.raises(TmemRefused):
        bank.tmem.new_pool(persistent=False, shared=secret)
    assert ask(running, "shared-auth", guest="bank", secret=SECRET) == {"allowed": True, "changed": 1}
    assert bank.tmem.new_pool(persistent=False, shared=secret).put(1, 1, PAGE)
    late = running.guest("late")
    assert ask(running, "shared-auth", all=True, secret=SECRET) == {"allowed": True, "changed": 2}
    assert late.tmem.new_pool(persistent=False, shared=secret).get(1, 1) == PAGE
    assert ask(running, "shared-auth", guest="late", secret=SECRET, allow=False) == {"allowed": False, "changed": 1}
    assert ask(running, "shared-auth", guest="late", secret=SECRET, allow=False) == {"allowed": False, "changed": 0}


@pytest.mark.parametrize("secret", ["", "5", "g" * 32, "0" * 32, "f" * 32, SECRET + "0", 5, None, "٣" * 32], ids=repr)
def test_secret_that_is_none_is_refused_and_not_repeated(running, bank, secret):
    with pytest.raises(UsageProblem, match="secret is") as raised:
        ask(running, "shared-auth", guest="bank", secret=secret)
    assert not secret or str(secret) not in str(raised.value) or len(str(secret)) < 3


def test_17th_secret_is_refused(running, bank):
    for n in range(1, 17):
        ask(running, "shared-auth", guest="bank", secret=f"{n:032x}")
    with pytest.raises(UsageProblem, match="may join 16 shared pools already"):
        ask(running, "shared-auth", guest="bank", secret=f"{17:032x}")
    assert ask(running, "shared-auth", guest="bank", secret=f"{16:032x}")["changed"] == 1


def test_list_says_everything_but_the_secret(running, bank):
    ask(running, "shared-auth", guest="bank", secret=SECRET)
    pool = bank.tmem.new_pool(persistent=False, shared=int(SECRET, 16))
    pool.put(1, 1, PAGE)
    keep = bank.tmem.new_pool(persistent=True)
    assert keep.put(1, 0, PAGE)
    ask(running, "freeze", guest="bank")
    assert not keep.put(1, 1, PAGE)
    answer = ask(running, "list")
    assert (answer["scheme"], answer["next"]) == ("tmem", None)
    store, [guest] = answer["store"], answer["guests"]
    assert (store["pages"], store["ephemeral"], store["persistent"], store["frames"]) == (2, 1, 1, 2)
    assert store["forms"] == {"raw": {"pages": 2, "frames": 2, "data_bytes": 2 * PAGE_SIZE, "pages_a_frame": 1.0}}
    assert store["refusals"] == guest["refusals"] == {"frozen": 1}
    assert [pool["type"] for pool in guest["pools"]] == ["ephemeral", "persistent"]
    assert (guest["pools"][0]["owner"], guest["pools"][0]["members"]) == ("bank", ["bank"])
    assert guest["pools"][1]["counters"] | {"pt": 2, "ps": 1, "px": 1} == guest["pools"][1]["counters"]
    assert SECRET[-16:] not in repr(answer)


def test_list_of_many_comes_in_parts(running):
    names = [f"g{n:02}" for n in range(GUESTS_A_MESSAGE * 2 + 3)]
    for name in names:
        tmem = running.guest(name, pages=1).tmem
        for _ in range(16):
            tmem.new_pool(persistent=False)
    assert [guest["name"] for guest in ask(running, "list")["guests"]] == names
    lines = ask(running, "list", xen=True, long=True)["guests"]
    assert [line[:2] for line in lines] == (["C="] + ["P="] * 16) * len(names)
    assert running.inside(lambda: running.machine.orders.table["tmem-list"]({}))["next"] == GUESTS_A_MESSAGE


def test_the_longest_part_of_a_list_is_below_the_doors_limit(running):
    """Every counter as long as it gets."""
    import msgpack

    for n in range(GUESTS_A_MESSAGE):
        tmem = running.guest(f"{n}" * 64, pages=1).tmem
        for _ in range(16):
            tmem.new_pool(persistent=False)

    def longest():
        store, sizes = running.machine.store, []
        held = [*(pool.counts for pool in store.pools.all()), *(client.counts for client in store.clients.all())]
        kept = [counts.copy() for counts in held]
        for counts in held:
            counts[:] = 1 << 62
        for message in ({}, {"xen": True, "long": True}):
            sizes.append(len(msgpack.packb(running.machine.orders.table["tmem-list"](message))))
        for counts, before in zip(held, kept, strict=True):
            counts[:] = before
        return sizes
    assert max(running.inside(longest)) < door.MESSAGE_LIMIT


@pytest.mark.parametrize("start", ["0", None, 1.0, [0]], ids=repr)
def test_list_from_nowhere(running, start):
    with pytest.raises(UsageProblem, match=r"from .* is not a number"):
        ask(running, "list", **{"from": start})


def test_list_of_the_cluster_has_tmem_too(running, bank):
    bank.tmem.new_pool(persistent=False).put(1, 1, bytes(PAGE_SIZE))
    assert call(running.cluster, {"call": "list"})["tmem"]["pages"] == 1


def test_last_words_say_what_was_refused_and_what_it_cost(running, bank):
    ask(running, "freeze", guest="bank")
    assert not bank.tmem.new_pool(persistent=False).put(1, 1, PAGE)
    bank.close()
    running.until(lambda: not running.machine.domains)
    words = running.inside(running.machine.orders.last_words)
    assert words["tmem"]["refusals"] == {"frozen": 1}
    assert words["cpu_seconds"] > 0
