"""The three commands, between real hypervisors: what they print, what they leave, and deaths by SIGKILL on the way."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from guests import Guest
from guests.pool import Pool
from hypervisor.toolstack import migrate
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.errors import HypervisorGone, UsageProblem

ROOT = Path(__file__).parents[3]
COUNT = 200
DEADLINE_S = 20.0
# Carries a migration as far as some pages, or until its guest is held still; says so, and waits to be killed.
CARRIER = """
import sys, time
from hypervisor.toolstack.migrate import Session
source, target, until = sys.argv[1:]
from_, to = Session(source), Session(target)
to.ask("tmem-restore-begin")
from_.ask("tmem-save-begin", guest="mine")
while True:
    answer = from_.ask("tmem-save-next")
    to.ask("tmem-restore-next", data=answer["data"])
    if until == "some" or answer[until]:
        break
print("there", flush=True)
time.sleep(60)
"""


CHILDREN = pytest.mark.parametrize("clusters", ["children"], indirect=True)


@pytest.fixture
def clusters(request, machine):
    """Two hypervisors: in this process, or, where one is to be killed, children (`CHILDREN`)."""
    start = request.getfixturevalue("hypervisor_process") if hasattr(request, "param") else machine
    return [start(budget=1024, scheme="tmem", swap=0) for _ in range(2)]


@pytest.fixture
def names(clusters):
    return [child.cluster for child in clusters]


@pytest.fixture
def pages():
    return np.random.default_rng(3).integers(0, 256, (COUNT, PAGE_SIZE), np.uint8)


@pytest.fixture
def guest(names):
    with Guest.connect(names[0], "mine", "16KiB", "4MiB") as made:
        yield made


@pytest.fixture
def pool(guest, pages):
    made = guest.tmem.new_pool(persistent=True)
    assert made.put_many(1, range(COUNT), pages).all()
    return made


def holds(pool, pages):
    hits, found = pool.get_many(1, range(COUNT))
    return hits.all() and (found == pages).all()


def problems(cluster):
    answer = call(cluster, {"call": "audit"})
    return answer["problems"] + answer["drifts"]


def test_migrate_says_what_it_did(typed, names, guest, pool, pages):
    status, out, err = typed("ctl", names[0], "tmem-migrate", "mine", names[1])
    assert (status, err) == (0, "")
    sentences = [
        rf"guest 'mine' has its tmem in '{names[1]}' now: {COUNT} persistent pages \(\d+\.\d KiB\)\.",
        rf"{COUNT} pages were sent \(\d+\.\d KiB, \d+\.\d\d s\), 0 of them after the first pass, and 0 flushes, in 0 "
        rf"rounds more\.", r"It was held still for \d+\.\d ms\.\n"]
    assert re.fullmatch("  ".join(sentences), out), out
    assert holds(pool, pages)
    assert problems(names[0]) + problems(names[1]) == []


def test_a_guest_does_not_move_to_where_it_is(typed, names, guest, pool):
    assert typed("ctl", names[0], "tmem-migrate", "mine", names[0]) == (
        2, "", f"guest 'mine' is to move from {names[0]!r} to {names[0]!r}: name another cluster to move to\n")


def test_migrate_says_it_in_json(typed, names, guest, pool):
    status, out, _ = typed("ctl", names[0], "tmem-migrate", "mine", names[1], "--json", "--mode", "live")
    report = json.loads(out)
    assert status == 0
    assert {key: report[key] for key in ("guest", "from", "to", "pages", "resent", "gone", "rounds", "persistent")} == {
        "guest": "mine", "from": names[0], "to": names[1], "pages": COUNT, "resent": 0, "gone": 0, "rounds": 0,
        "persistent": COUNT}
    assert pool.get(1, 0) is not None


def test_save_and_restore_by_a_file(typed, names, guest, pool, pages, tmp_path):
    file = tmp_path / "mine.tmem"
    status, out, err = typed("ctl", names[0], "tmem-save", "mine", str(file))
    assert (status, err) == (0, "") and out.startswith(f"guest 'mine' is saved: {COUNT} pages were sent")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tmem"]
    pool.flush_object(1)
    status, out, _ = typed("ctl", names[1], "tmem-restore", str(file), "--json")
    restored = json.loads(out)
    assert (status, restored["guest"], restored["persistent"]) == (0, "mine", COUNT)
    status, out, err = typed("ctl", names[1], "tmem-restore", str(file))
    assert (status, out) == (2, "") and "'mine' is here already, and waits to be taken up; tmem-destroy drops it" in err
    with Guest.connect(names[1], "mine", "16KiB", resume=restored["token"]) as taken:
        assert holds(Pool(taken.tmem, 0, persistent=True), pages)
    assert not pool.get(1, 0), "the one that was saved runs on by itself"


def test_save_and_restore_through_a_pipe(names, guest, pool, pages):
    command = [sys.executable, "-m", "hypervisor.toolstack.cli", "ctl"]
    with subprocess.Popen([*command, names[0], "tmem-save", "mine", "-"], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as saving:
        restored = subprocess.run([*command, names[1], "tmem-restore", "-", "--json"], cwd=ROOT, stdin=saving.stdout,
                                  capture_output=True, timeout=DEADLINE_S, check=True)
        assert b"is saved" in saving.stderr.read()
    with Guest.connect(names[1], "mine", "16KiB", resume=json.loads(restored.stdout)["token"]) as taken:
        assert holds(Pool(taken.tmem, 0, persistent=True), pages)


def test_what_is_no_plain_file_stays_what_it_is(typed, python_process, names, guest, pool, tmp_path):
    """A pipe stands in for /dev/null, which a save must not replace by a file either."""
    pipe, links = tmp_path / "pipe", tmp_path / "links"
    os.mkfifo(pipe)
    reader = python_process("import sys; print(open(sys.argv[1], 'rb', 0).read(16))", str(pipe))
    status, _, err = typed("ctl", names[0], "tmem-save", "mine", str(pipe))
    assert reader.line() == repr(b"memcommons tmem\n")
    assert (status, err) == (2, f"{pipe}: Broken pipe\n") and pipe.is_fifo()
    links.symlink_to(tmp_path / "file")
    assert typed("ctl", names[0], "tmem-save", "mine", str(links))[0] == 0
    assert links.is_symlink() and (tmp_path / "file").is_file()


def test_a_name_that_only_looks_like_ours_is_let_alone(typed, names, guest, pool, tmp_path):
    theirs = tmp_path / "mine.tmem.part"
    theirs.write_text("precious")
    assert typed("ctl", names[0], "tmem-save", "mine", str(tmp_path / "mine.tmem"))[0] == 0
    assert theirs.read_text() == "precious"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_save_that_is_stopped_leaves_no_file(python_process, names, guest, pool, tmp_path, signum):
    """The source is held between two pieces: a file has begun, and is not whole."""
    halting = ("import signal, sys, time\nfrom hypervisor.toolstack import cli, migrate\n"
               "signal.signal(signal.SIGINT, signal.default_int_handler)\n"   # ignored by what runs in the background,
               "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"               # and by what nohup runs
               "def halted(*_):\n    yield b'some'\n    print('there', flush=True)\n    time.sleep(60)\n"
               "migrate.pieces = halted\nsys.argv[1:] = ['ctl', *sys.argv[1:]]\nsys.exit(cli.main())")
    child = python_process(halting, names[0], "tmem-save", "mine", str(tmp_path / "f"))
    assert child.line() == "there"
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    child.process.send_signal(signum)
    assert child.process.wait(DEADLINE_S) == 128 + signum
    assert child.process.stderr.read() == (b"stopped by SIGINT\n" if signum == signal.SIGINT else b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "line"), [
    (("tmem-save", "mine", ""), "tmem-save: name a file, or - for standard output"),
    (("tmem-save", "mine", "."), ".: Is a directory"),
    (("tmem-save", "\udcff", "f"), "'\\udcff' is not UTF-8 text, so it names nothing here"),
    (("tmem-freeze", "\udcff"), "'\\udcff' is not UTF-8 text, so it names nothing here"),
    (("tmem-set", "mine", "-w", str(1 << 70)), "a number is too large: 64 bits are the most that can be sent"),
    (("tmem-flush", f"{1 << 70}GiB"), "a number is too large: 64 bits are the most that can be sent"),
    (("tmem-save", "other", "f"), "no guest 'other' is attached; there are: mine"),
    (("tmem-save", "mine", "f", "--mode", "fast"), "'fast' is no way to save; allowed: stop, live, track"),
    (("tmem-save", "mine", "nowhere/f"), "nowhere/f: No such file or directory"),
    (("tmem-restore", "nowhere"), "nowhere: No such file or directory"),
    (("tmem-restore", "junk"), "the stream is damaged at byte 0"),
    (("tmem-restore", "empty"), "the stream is damaged at byte 0: it is cut short"),
    (("tmem-migrate", "mine", "nobody-serves-this"), "no cluster 'nobody-serves-this' is running"),
    (("tmem-migrate", "mine"), "Missing argument"),
])
def test_what_goes_wrong_is_one_line(typed, names, guest, pool, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk").write_bytes(b"x" * 100)
    (tmp_path / "empty").write_bytes(b"")
    status, out, err = typed("ctl", names[0], *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert line in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "junk"]


@pytest.mark.parametrize("damage", [1, 30, 5000, -1])
def test_a_damaged_file_is_refused_with_the_place(names, guest, pool, tmp_path, damage):
    file = tmp_path / "saved"
    with file.open("wb") as out:
        migrate.save(names[0], "mine", out)
    data = bytearray(file.read_bytes())
    data[damage] ^= 1
    file.write_bytes(data)
    with file.open("rb") as stream, pytest.raises(UsageProblem, match=r"damaged at byte \d+"):
        migrate.restore(names[1], stream)
    assert problems(names[1]) == []
    with Guest.connect(names[1], "mine", "16KiB") as again:
        again.ping()


@pytest.mark.parametrize("until", ["some", "paused"])
def test_a_toolstack_that_is_killed_moves_nothing(python_process, names, guest, pool, pages, until):
    carrier = python_process(CARRIER, *names, until)
    assert carrier.line() == "there"
    carrier.kill()
    assert holds(pool, pages), "served again"
    assert migrate.migrate(names[0], "mine", names[1])["pages"] == COUNT
    assert holds(pool, pages)
    assert problems(names[0]) + problems(names[1]) == []


@CHILDREN
@pytest.mark.parametrize("until", ["some", "paused"])
def test_a_target_that_is_killed_leaves_the_guest_where_it_is(
        python_process, clusters, names, guest, pool, pages, until):
    carrier = python_process(CARRIER, *names, until)
    assert carrier.line() == "there"
    clusters[1].kill()
    carrier.kill()
    with pytest.raises(UsageProblem, match="is running"):
        migrate.migrate(names[0], "mine", names[1])
    assert holds(pool, pages)
    assert problems(names[0]) == []


@CHILDREN
@pytest.mark.parametrize("until", ["some", "paused"])
def test_a_source_that_is_killed_leaves_nothing_there(python_process, clusters, names, guest, pool, until):
    carrier = python_process(CARRIER, *names, until)
    assert carrier.line() == "there"
    clusters[0].kill()
    with pytest.raises(HypervisorGone):
        pool.get(1, 0)
    carrier.kill()
    with Guest.connect(names[1], "mine", "16KiB") as again:
        again.ping()
    assert problems(names[1]) == []


def test_a_guest_killed_on_the_way_leaves_nothing(python_process, names):
    """Its number, pools and frames go at the source; what had come to the target goes with the connection."""
    victim = python_process("""
import sys, time
import numpy as np
from guests import Guest
with Guest.connect(sys.argv[1], "mine", "16KiB", "4MiB") as guest:
    guest.tmem.new_pool(persistent=True).put_many(1, range(200), np.ones((200, 4096), np.uint8))
    print("there", flush=True)
    time.sleep(60)
""", names[0])
    assert victim.line() == "there"
    carrier = python_process(CARRIER, *names, "some")
    assert carrier.line() == "there"
    victim.kill()
    deadline = monotonic() + DEADLINE_S
    while call(names[0], {"call": "list"})["guests"]:        # its death is an event as any: soon, and not at once
        assert monotonic() < deadline
    carrier.kill()
    with Guest.connect(names[1], "mine", "16KiB") as again:
        again.ping()
    assert problems(names[0]) + problems(names[1]) == []


def test_a_target_that_hangs_is_given_up(names, guest, pool, pages, monkeypatch):
    """The source goes on as soon as the connection is closed, not only after the longest pause."""
    asked = migrate.Session.ask

    def hanging(self, order, **more):
        if order == "tmem-restore-commit":
            raise HypervisorGone("nothing comes through the door")
        return asked(self, order, **more)

    monkeypatch.setattr(migrate.Session, "ask", hanging)
    with pytest.raises(HypervisorGone):
        migrate.migrate(names[0], "mine", names[1])
    assert holds(pool, pages)
