"""`ctl CLUSTER tmem-*`, typed as people do, against a real hypervisor; and the same orders from Python."""

import json
import re
import uuid

import pytest

from hypervisor.toolstack.tmem_control import EVERYBODY, Tmem
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

SECRET = "0123456789abcdef0123456789ABCDEF"
PAGE = b"x" * PAGE_SIZE


@pytest.fixture
def running(machine):
    return machine(budget=1024, scheme="tmem", swap=0)


@pytest.fixture
def bank(running):
    return running.guest("bank", pages=16, max_pages=600, weight=0)


@pytest.fixture
def typed(typed, running):
    """Type a command to the cluster; return (status, standard output, standard error)."""
    return lambda *words: typed("ctl", running.cluster, *words)


def test_freeze_and_thaw_one(typed, bank):
    pool = bank.tmem.new_pool(persistent=False)
    assert typed("tmem-freeze", "bank") == (
        0, "guest 'bank' is frozen: new pages are refused, gets and flushes go on\n", "")
    assert not pool.put(1, 1, PAGE)
    assert typed("tmem-thaw", "bank") == (0, "guest 'bank' is thawed\n", "")
    assert pool.put(1, 1, PAGE)


def test_freeze_all_and_thaw_one_says_that_it_is_still_frozen(typed, bank):
    assert typed("tmem-freeze", "--all")[:2] == (
        0, "all guests are frozen: new pages are refused, gets and flushes go on, and so it will be with guests that "
           "come\n")
    assert typed("tmem-thaw", "bank")[1] == "guest 'bank' is thawed; but everybody is frozen: use tmem-thaw --all\n"
    assert typed("tmem-thaw", "--all")[1] == "all guests are thawed\n"


@pytest.mark.parametrize("name", ["[/x]", "[bold]b", ":smile:"])
def test_a_guests_name_is_no_markup(typed, running, name):
    """Whoever attaches chooses it: it must neither end the operator's list nor hide in it."""
    running.guest(name, pages=1).tmem.new_pool(persistent=True)
    for command in (["tmem-list", "-l"], ["list"]):
        status, out, err = typed(*command)
        assert (status, err) == (0, "")
        assert name in out


@pytest.mark.parametrize("command", ["tmem-freeze", "tmem-thaw", "tmem-destroy", "tmem-set"])
@pytest.mark.parametrize("words", [[], ["bank", "--all"]], ids=["nobody", "both"])
def test_one_guest_or_all_must_be_named(typed, command, words):
    assert typed(command, *words) == (2, "", f"{command}: name a guest, or give --all\n")


@pytest.mark.parametrize("words", [["tmem-freeze", "b"], ["tmem-thaw", "b"], ["tmem-destroy", "b"],
                                   ["tmem-set", "b", "-w", "1"], ["tmem-shared-auth", "b", SECRET]], ids=lambda w: w[0])
def test_unknown_guest_is_one_line_and_status_2(typed, bank, words):
    assert typed(*words) == (2, "", "no guest 'b' is attached; there are: bank\n")


def test_set_prints_what_is_now(typed, bank):
    assert typed("tmem-set", "bank", "-w", "4", "-c", "1200", "-p", "1") == (
        0, "bank: weight 4, cap 1,200 pages, form lz4\n", "")
    assert typed("tmem-set", "--all", "--cap", "0", "--form", "tze") == (0, "bank: weight 4, cap none, form tze\n", "")


@pytest.mark.parametrize(("words", "said"), [
    ([], "nothing to set: give weight, cap, compress or form"),
    (["--form", "zip"], "form 'zip': use one of raw, lz4, dedup, tze, and no compress with it"),
    (["--form", "raw", "-p", "1"], "form 'raw': use one of raw, lz4, dedup, tze, and no compress with it")])
def test_set_of_what_cannot_be(typed, bank, words, said):
    assert typed("tmem-set", "bank", *words) == (2, "", said + "\n")


@pytest.mark.parametrize("words", [["-w", "-1"], ["-w", "x"], ["-c", "-1"], ["-p", "2"]], ids=" ".join)
def test_set_of_what_is_no_number_is_one_line(typed, bank, words):
    status, out, said = typed("tmem-set", "bank", *words)
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert said.startswith("memcommons ctl CLUSTER tmem-set: Invalid value for ")


def test_flush_and_freeable(typed, bank, running):
    pool = bank.tmem.new_pool(persistent=False)
    for index in range(300):
        assert pool.put(1, index, PAGE)
    running.inside(lambda: running.machine.heap.trim(running.machine.heap.spare))
    assert typed("tmem-freeable") == (0, "1 MiB\n", "")
    assert typed("tmem-flush", "1MiB") == (0, "1.0 MiB went back to the machine; 256 pages evicted\n", "")
    assert typed("tmem-flush", "1GiB")[1] == "176.0 KiB went back to the machine, all there was; 44 pages evicted\n"
    assert typed("tmem-freeable")[1] == "0 MiB\n"


@pytest.mark.parametrize("size", ["much", "-1MiB", "0B", "1e3"])
def test_flush_of_what_is_no_size(typed, running, size):
    status, out, said = typed("tmem-flush", "--", size)
    assert (status, out, said.count("\n")) == (2, "", 1)


def test_destroy(typed, bank):
    for kind in (False, True):
        bank.tmem.new_pool(persistent=kind).put(1, 1, PAGE)
    assert typed("tmem-destroy", "bank") == (0, "2 pools with 2 pages dropped\n", "")


def test_shared_pool_of_a_new_secret(typed, bank, running):
    late = running.guest("late")
    status, out, _ = typed("tmem-shared-auth", "bank", "--new")
    secret = uuid.UUID(out.strip())
    assert status == 0
    assert typed("tmem-shared-auth", "late", str(secret))[1] == "guest 'late' is allowed to join that pool\n"
    assert bank.tmem.new_pool(persistent=False, shared=secret).put(1, 1, PAGE)
    assert late.tmem.new_pool(persistent=False, shared=secret).get(1, 1) == PAGE
    assert typed("tmem-shared-auth", "late", secret.hex, "--deny")[1] == (
        "guest 'late' is not allowed to join that pool any more\n")
    assert typed("tmem-shared-auth", "late", secret.hex, "--deny")[1] == (
        "guest 'late' is not allowed to join that pool, and had not been\n")


def test_all_guests_share(typed, bank, running):
    running.guest("late")
    assert typed("tmem-shared-auth", "--all", SECRET) == (0, "all guests are allowed to join that pool\n", "")
    assert [len(client.authorised) for client in running.machine.store.clients.all()] == [1, 1]
    assert typed("tmem-shared-auth", "--all", "--new")[0] == 0


@pytest.mark.parametrize("words", [["bank"], ["bank", SECRET, "--new"], ["bank", "--new", "--deny"]], ids=" ".join)
def test_secret_or_new_must_be_given(typed, bank, words):
    assert typed("tmem-shared-auth", *words) == (
        2, "", "tmem-shared-auth: give a secret, or --new for one that nobody knows\n")


@pytest.mark.parametrize("secret", ["x", SECRET[1:], SECRET + "0", "g" + SECRET[1:], "-" * 36], ids=repr)
def test_secret_that_is_none_is_not_repeated(typed, bank, secret):
    assert typed("tmem-shared-auth", "bank", "--", secret) == (
        2, "", "tmem-shared-auth: a secret is 32 hexadecimal digits or a UUID\n")


def fill(bank):
    pool = bank.tmem.new_pool(persistent=False)
    for index in range(12):
        pool.put(1, index, PAGE)
    pool.get(1, 1)
    keep = bank.tmem.new_pool(persistent=True)
    keep.put(1, 1, PAGE)


def row(text, start):
    line = next(line for line in text.splitlines() if line.strip().startswith(start))
    return re.split(r"\s{2,}", line.strip())


def test_list_for_people(typed, bank, running):
    fill(bank)
    running.guest("late", weight=3)
    typed("tmem-set", "late", "--form", "lz4", "-c", "50")
    typed("tmem-freeze", "bank")
    bank.tmem.new_pool(persistent=False).put(1, 1, PAGE)
    status, out, said = typed("tmem-list")
    assert (status, said) == (0, "")
    assert "12 pages (11 ephemeral, 1 persistent) in 12 frames; 0 MiB freeable" in out
    assert "18 operations, 1 of them refused or failed; 0 pages evicted" in out
    assert "stored: raw 12 pages in 12 frames (1.00 a frame)" in out
    assert "refused: frozen 1" in out
    assert row(out, "bank (frozen)") == ["bank (frozen)", "0", "none", "raw", "3", "11", "1", "14", "1", "1",
                                         "frozen 1"]
    assert row(out, "late") == ["late", "3", "50", "lz4", "0", "0", "0", "0", "0", "0", "0"]
    assert max(map(len, out.splitlines())) <= 100
    assert "pools" not in {line.strip() for line in out.splitlines()}


def test_long_list_has_the_pools(typed, bank):
    fill(bank)
    out = typed("tmem-list", "-l")[1]
    pools = out[out.index("\npools"):]
    lines = [re.split(r"\s{2,}", line.strip()) for line in pools.splitlines() if line.strip().startswith("bank")]
    assert lines == [["bank", "0", "ephemeral", "11", "12", "1", "12", "12", "1", "1", "0", "0"],
                     ["bank", "1", "persistent", "1", "1", "1", "1", "1", "0", "0", "0", "0"]]
    assert max(map(len, out.splitlines())) <= 100


def test_list_without_clients(typed, running):
    status, out, _ = typed("tmem-list")
    assert status == 0
    assert out.endswith("no guest has used tmem\n")


def test_list_as_json_is_everything(typed, bank):
    fill(bank)
    answer = json.loads(typed("tmem-list", "--json")[1])
    assert (answer["store"]["pages"], answer["guests"][0]["name"]) == (12, "bank")
    assert [pool["counters"]["ps"] for pool in answer["guests"][0]["pools"]] == [12, 1]


def test_list_as_xen_prints_it(typed, bank, running):
    fill(bank)
    status, short, _ = typed("tmem-list", "--xen")
    assert status == 0
    assert re.fullmatch(r"G=Tt:16,Te:0,[^\n]+\nC=CI:0,ww:0,ca:0,co:0,fr:0,Tc:\d+,Ge:1,Pp:1,Gp:0\n"
                        r"P=CI:0,PI:0,PT:EP,U0:0,U1:0\nP=CI:0,PI:1,PT:PP,U0:0,U1:0\n", short)
    long = typed("tmem-list", "--xen", "--long")[1].splitlines()
    assert all(there.startswith(line) for line, there in zip(short.splitlines(), long, strict=True))
    assert "Pc:11,Pm:12,Oc:1,Om:1," in long[2]
    assert Tmem(running.cluster).xen_lines(limit=len(short) - 1) == short[:short.rindex("P=")]


def test_orders_from_python(bank, running):
    tmem = Tmem(running.cluster)
    assert tmem.freeze("bank") == {"frozen": ["bank"]}
    assert tmem.thaw(EVERYBODY) == {"thawed": ["bank"], "still_frozen": False}
    assert tmem.set("bank", weight=3)["guests"][0]["weight"] == 3
    fill(bank)
    assert (tmem.freeable(), tmem.flush(5000)["kib"] >= 8) == (0, True)
    assert tmem.shared_auth("bank", uuid.UUID(SECRET)) == {"allowed": True, "changed": 1}
    assert tmem.destroy("bank")["pools"] == 2
    with pytest.raises(UsageProblem, match="no guest 'x' is attached; there are: bank"):
        tmem.freeze("x")
    assert Tmem(lambda question: {"freeable_mib": len(question["call"])}).freeable() == len("tmem-freeable")
