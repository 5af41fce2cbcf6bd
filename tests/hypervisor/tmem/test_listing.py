"""Xen's lines and the figures behind them, of stores without a machine."""

import numpy as np
import pytest
from stores import EPHEMERAL, OID, PERSISTENT, A, B, a_store, new_pool, page, put

from hypervisor.tmem import figures
from hypervisor.tmem.forms import Form
from hypervisor.tmem.listing import cut, line, listed
from shm.abi import PAGE_SIZE, PoolFlag, Status


def keys(text, head, at=0):
    """Return the keys and values of the n-th line that begins with `head`."""
    lines = [each for each in text.splitlines() if each.startswith(head + "=")]
    return dict(pair.split(":") for pair in lines[at][2:].split(","))


def whole(store, is_long=True):
    return listed(store, is_long, 1 << 20)


def test_a_line_is_a_letter_and_pairs():
    assert line("C", {"CI": 3, "ww": 0}) == "C=CI:3,ww:0"


@pytest.mark.parametrize(("limit", "text"), [(0, ""), (2, ""), (3, "ab\n"), (5, "ab\n"), (6, "ab\ncd\n"),
                                             (99, "ab\ncd\n")])
def test_cut_keeps_whole_lines(limit, text):
    assert cut(["ab", "cd"], limit) == text


def test_list_of_an_empty_store_is_one_line():
    with a_store() as store:
        text = whole(store)
        assert text.count("\n") == 1
        assert set(keys(text, "G").values()) == {"0"}


def test_maxima_stay_when_pages_go():
    with a_store() as store:
        pool = new_pool(store, A)
        for n in range(6):
            assert put(store, A, pool, n + 1, (n // 2, 0, 0), n) == Status.OK
        for n in range(4):
            store.flush_page(A, pool, (n // 2, 0, 0), n)
        text = whole(store)
        store_line = keys(text, "G")
        assert [store_line[key] for key in ("Pc", "Pm", "Ec", "Em", "Oc", "Om", "Fc", "Fm")] == [
            "2", "6", "2", "6", "1", "3", "2", "6"]
        pool_line = keys(text, "P")
        assert [pool_line[key] for key in ("Pc", "Pm", "Oc", "Om", "fs", "ft")] == ["2", "6", "1", "3", "4", "4"]
        assert (keys(text, "C")["Ec"], keys(text, "C")["Em"]) == ("2", "6")
        assert store_line["Ep"] == "6"


def test_most_ephemeral_pages_of_a_client_are_of_all_its_pools_together():
    with a_store() as store:
        first, second = new_pool(store, A), new_pool(store, A)
        for n in range(4):
            put(store, A, first, n, index=n)
        store.flush_object(A, first, OID)
        for n in range(3):
            put(store, A, second, n + 9, index=n)
        put(store, A, first, 77)
        put(store, A, first, 78, index=1)
        assert (keys(whole(store), "C")["Ec"], keys(whole(store), "C")["Em"]) == ("5", "5")


def test_evictions_over_several_pools_are_counted_to_each():
    with a_store(cap=4) as store:
        pools = [new_pool(store, guest) for guest in (A, B)]
        for n in range(4):
            put(store, (A, B)[n % 2], pools[n % 2], n, (n // 2, 0, 0), n)
        for n in range(4, 7):
            put(store, A, pools[0], n, (9, 0, 0), n)
        held = [store.pools.get(guest, pool) for guest, pool in zip((A, B), pools, strict=True)]
        assert [(pool.evicted, pool.pages, pool.objects) for pool in held] == [(2, 3, 1), (1, 1, 1)]
        assert store.audit() == []


def test_audit_finds_a_wrong_number_of_objects():
    with a_store() as store:
        pool = store.pools.get(A, new_pool(store, A))
        pool.objects += 1
        assert store.audit() == [f"store: pool {pool.serial} counts 1 objects, has 0"]
        pool.objects -= 1


def text_page(seed):
    """A page that shrinks well, with an end of zeros."""
    words = np.zeros(PAGE_SIZE // 8, np.uint64)
    words[:100] = seed
    return words.view(np.uint8)


def test_forms_add_up_to_all_pages_and_frames():
    with a_store() as store:
        for guest, form in enumerate(Form):
            pool = new_pool(store, guest, EPHEMERAL)
            store.clients.get(guest).form = form
            for n in range(40):
                assert store.put(guest, pool, OID, n, text_page(n // 2 + 1)) == Status.OK
            assert store.new_page(guest, pool, OID, 99) == Status.OK
        forms = figures.forms(store, store.storage.figures())
        assert {kind: held["pages"] for kind, held in forms.items()} == {
            "raw": 40, "lz4": 40, "tze": 40, "dedup": 40, "zero": 4}
        assert sum(held["frames"] for held in forms.values()) == store.heap.in_use
        assert (forms["dedup"]["frames"], forms["dedup"]["pages_a_frame"]) == (20, 2.0)
        assert (forms["zero"]["frames"], forms["zero"]["pages_a_frame"]) == (0, None)
        assert forms["tze"]["data_bytes"] == 40 * 800
        assert (forms["lz4"]["frames"] >= 1) < forms["tze"]["frames"]
        assert forms["raw"]["pages_a_frame"] == 1.0


def test_compressed_pages_go_to_their_guest_and_pool():
    with a_store(form=Form.LZ4) as store:
        for guest, count in ((A, 3), (B, 5)):
            pool = new_pool(store, guest, PERSISTENT)
            for n in range(count):
                store.put(guest, pool, OID, n, text_page(7))
            put(store, guest, pool, 0, index=50)             # all zero: no data
            store.put(guest, pool, OID, 51, np.random.default_rng(1).integers(0, 256, PAGE_SIZE, np.uint8))
        by_pool, clients = figures.tallies(store), store.clients
        compressed = [figures.compressed(store, clients.get(guest), by_pool) for guest in (A, B)]
        assert [pages for pages, _ in compressed] == [3, 5]
        assert compressed[0][1] * 5 == compressed[1][1] * 3 > 0
        text = whole(store)
        assert [keys(text, "C", n)["cn"] for n in range(2)] == ["1", "1"]
        assert int(keys(text, "G")["Gz"]) == compressed[0][1] + compressed[1][1]


def test_refusals_outlive_their_guest():
    with a_store() as store:
        pool = new_pool(store, A)
        store.clients.get(A).frozen = True
        assert store.put(A, pool, OID, 0, page(1)) == Status.EFROZEN
        store.forget(A)
        assert figures.of_store(store)["refusals"] == {"frozen": 1}


def test_members_of_a_shared_pool_are_listed():
    with a_store(authorise=False) as store:
        for guest in (A, B):
            store.create_pool(guest, EPHEMERAL | PoolFlag.SHARED, (0xABC, 2))
        text = whole(store, is_long=False)
        assert "S=SI:0,PT:ES,U0:abc,U1:2,SC:0,SC:1\n" in text
        assert text.count("PT:ES,U0:abc,U1:2") == 3
