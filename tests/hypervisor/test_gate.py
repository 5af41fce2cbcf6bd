"""The gate: who is let in, what is refused and in which words, and that a refusal leaves nothing behind."""

import errno
import mmap
import os
import select
import socket
import stat
from contextlib import ExitStack

import pytest
from peers import ATTACH, Peer, ask, own_names, prove_open, refusal

from hypervisor import gate
from shm import door
from shm.abi import ABI_VERSION, MAX_GUEST_PAGES, PAGE_SIZE
from shm.errors import HypervisorGone
from shm.transfer import TRANSFER_PAGES

DEEP = b"\x91" * 900 + b"\x01"                               # lists in lists, as deep as msgpack reads


# What is refused

REFUSALS = {
    "an older release": ({"abi": 0}, ["ABI version 0 of the guest", f"{ABI_VERSION} of the hypervisor"]),
    "a newer release": ({"abi": 7}, ["ABI version 7 of the guest", f"{ABI_VERSION} of the hypervisor", "one release"]),
    "no ABI version": ({"abi": None}, ["ABI version None"]),
    "an ABI version in words": ({"abi": "1"}, ["ABI version '1'"]),
    "no name": ({"name": None}, ["guest name None", "1 to 64 printable"]),
    "an empty name": ({"name": ""}, ["guest name ''", "1 to 64 printable"]),
    "a name of 65": ({"name": "x" * 65}, ["guest name 'xxx", "1 to 64 printable"]),
    "a name of two lines": ({"name": "a\nb"}, ["1 to 64 printable"]),
    "a name that is a number": ({"name": 5}, ["guest name 5"]),
    "no pages": ({"pages": 0}, ["'liar'", "pages 0", f"1 to {MAX_GUEST_PAGES}"]),
    "pages below 0": ({"pages": -1}, ["pages -1"]),
    "too many pages": ({"pages": MAX_GUEST_PAGES + 1}, [f"pages {MAX_GUEST_PAGES + 1}", f"1 to {MAX_GUEST_PAGES}"]),
    "2^64 - 1 pages": ({"pages": (1 << 64) - 1}, ["pages 1844"]),
    "pages in words": ({"pages": "16"}, ["pages '16'"]),
    "half a page": ({"pages": 0.5}, ["pages 0.5"]),
    "true pages": ({"pages": True}, ["pages True"]),
    "max_pages in words": ({"max_pages": "many"}, ["max_pages 'many'"]),
    "max_pages 0": ({"max_pages": 0}, ["max_pages 0"]),
    "a weight below 0": ({"weight": -1}, ["weight -1", "0 to 65536"]),
    "a weight beyond": ({"weight": 1 << 20}, ["weight 1048576"]),
    "a call that nobody knows": ({"call": "detach"}, ["unknown call 'detach'", "attach", "list", "set-budget"]),
    "no call": ({"call": None}, ["unknown call None"]),
    "a call that is a list": ({"call": ["attach"]}, ["unknown call ['attach']"]),
    "leaving without having come": ({"call": "leave"}, ["no guest"]),
}


@pytest.mark.parametrize(("changed", "words"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_is_refused_says_why_in_one_line(machine, changed, words):
    running = machine()
    before = own_names(running.cluster)
    error = refusal(running.cluster, **changed)
    assert [word for word in words if word not in error] == [], error
    assert "\n" not in error and len(error) < 300
    assert own_names(running.cluster) == before
    prove_open(running)


@pytest.mark.parametrize("key", [b"abi", b"name", b"pages", b"weight", b"call", b"bytes", b"from"])
def test_something_very_deep_is_refused_like_anything_else(machine, key):
    """Lists nested beyond Python's own depth of repr: an answer, and no end of the hypervisor."""
    running = machine()
    call = {b"bytes": "set-budget", b"from": "list"}.get(key, "attach")
    fields = {name: value for name, value in (ATTACH | {"call": call}).items() if name.encode() != key}
    packed = b"".join(door.msgpack.packb(part) for pair in fields.items() for part in pair)
    with door.connect(running.cluster) as link:
        link.send(bytes([0x81 + len(fields)]) + packed + bytes([0xA0 + len(key)]) + key + DEEP)
        answer, _ = door.receive(link)
    assert len(answer["error"]) < 300
    prove_open(running)


def test_a_name_that_is_taken(machine):
    running = machine()
    running.guest("bank")
    assert "'bank' is attached already" in refusal(running.cluster, name="bank")
    running.guests.pop().close()
    with Peer(running.cluster, name="bank"):
        pass                                                 # free again once its guest has left


def test_one_guest_too_many(machine, monkeypatch):
    monkeypatch.setattr(gate, "MAX_GUESTS", 2)
    running = machine()
    running.guest("a")
    running.guest("b")
    assert "2 guests are attached" in refusal(running.cluster, name="c")
    running.guests.pop().close()
    running.guest("c")


def test_attaching_twice_over_one_connection(machine):
    running = machine()
    with Peer(running.cluster) as peer:
        assert "guest's already" in ask(peer.link, ATTACH | {"name": "twin"})[0]["error"]
        assert len(running.machine.domains) == 1


def test_max_mem_below_ram_means_ram(machine):
    running = machine()
    with Peer(running.cluster, pages=16, max_pages=4):
        assert running.domain("liar").max_pages == 16


# What comes through the door

@pytest.mark.parametrize("junk", [b"\xc1", b"\x00", b"ping", b"\xff" * 60_000, b"\x81\x01\x02", b"\x91" * 50_000],
                         ids=["no msgpack", "a number", "a text's head", "60,000 bytes", "a numbers map", "very deep"])
def test_junk_ends_the_connection_and_nothing_else(machine, junk):
    running = machine()
    with door.connect(running.cluster) as link:
        link.send(junk)
        with pytest.raises(HypervisorGone):
            door.receive(link)
    prove_open(running)


def test_junk_from_a_guest_ends_that_guest_alone(machine):
    running = machine()
    other = running.guest("other")
    other.memory.write(0, b"\x11" * PAGE_SIZE)
    with Peer(running.cluster) as peer:
        peer.link.send(b"\xc1")
        assert peer.is_cut_off()
    assert other.memory.read(0) == b"\x11" * PAGE_SIZE
    assert [domain.name for domain in running.inside(lambda: list(running.machine.domains.values()))] == ["other"]


def test_connections_that_say_nothing_keep_nobody_waiting(machine):
    running = machine()
    with ExitStack() as silent:
        for _ in range(40):
            silent.enter_context(door.connect(running.cluster))
        prove_open(running)


def test_connections_that_hang_up_without_a_word(machine):
    running = machine()
    for _ in range(40):
        door.connect(running.cluster).close()
    prove_open(running)
    assert running.inside(lambda: running.machine.gate._links) == {}


def is_closed_everywhere(read_end):
    """Wait until nobody has the other end of a pipe any more; say whether it came to that."""
    poller = select.poll()
    poller.register(read_end, select.POLLIN)
    return bool(poller.poll(20_000)) and os.read(read_end, 1) == b""


@pytest.mark.parametrize("count", [1, 8, 30])
@pytest.mark.parametrize("message", [{"call": "list"}, {"call": "nonsense"}, "junk"], ids=["order", "nonsense", "junk"])
def test_descriptors_sent_to_us_are_closed(machine, message, count):
    """Nobody fills the hypervisor's table of descriptors."""
    running = machine()
    read_end, write_end = os.pipe()
    with door.connect(running.cluster) as link:
        socket.send_fds(link, [b"\xc1" if message == "junk" else door.msgpack.packb(message)], [write_end] * count)
        os.close(write_end)
        assert is_closed_everywhere(read_end)
        os.close(read_end)
    prove_open(running)


# What is handed over

def test_the_content_states_can_be_read_and_not_written(machine):
    running = machine()
    with Peer(running.cluster) as peer:
        fd = peer.content.fd
        with mmap.mmap(fd, PAGE_SIZE, access=mmap.ACCESS_READ) as seen:
            assert set(seen[:16]) == {0x03}, "all zero, none resident"
        with pytest.raises(PermissionError):
            mmap.mmap(fd, PAGE_SIZE, access=mmap.ACCESS_WRITE)
        for attempt, *arguments in ((os.pwrite, b"\0", 0), (os.ftruncate, 0), (os.posix_fallocate, 0, 1)):
            with pytest.raises(OSError) as refused:
                attempt(fd, *arguments)
            assert refused.value.errno in (errno.EBADF, errno.EINVAL)
        assert peer.usage.map()[0] == 0, "its own word it may write"
        peer.usage.map()[0] = 4


def test_what_is_handed_over_has_the_size_it_should(machine):
    running = machine()
    with Peer(running.cluster, pages=5000) as peer:
        sizes = [held.pages for held in (peer.ram, peer.usage, peer.content, peer.buffer, peer.count)]
        assert sizes == [5000, 2, 2, TRANSFER_PAGES, 1]
        assert peer.ram.resident() == 0, "RAM costs nothing before it is touched"
        assert [held.resident() for held in (peer.usage, peer.buffer, peer.count)] == [2, TRANSFER_PAGES, 1]


def test_everything_is_the_users_alone(machine):
    """Mode 0600: other users read nothing, whatever their umask."""
    running = machine()
    with Peer(running.cluster) as peer:
        files = [entry for entry in os.listdir("/dev/shm") if running.machine.stem in entry]
        assert len(files) == 4, files                        # cluster, heap, the guest's memory, and its lock
        modes = {entry: stat.S_IMODE(os.stat(f"/dev/shm/{entry}").st_mode) for entry in files}
        assert set(modes.values()) == {0o600}, modes
        assert {stat.S_IMODE(os.fstat(queue.mqd).st_mode) for queue in (peer.requests, peer.replies)} == {0o600}


OTHER_USER = """
import os, sys
sys.path.insert(0, os.getcwd())
import posix_ipc
from shm import door, names
from shm.errors import MemcommonsError
os.setgid(65534); os.setuid(65534)           # after the imports: the interpreter may lie where nobody else may look
stem, cluster = sys.argv[1], sys.argv[2]
opened = []
for entry in os.listdir("/dev/shm"):
    if stem in entry:
        try:
            os.close(os.open("/dev/shm/" + entry, os.O_RDONLY)); opened.append(entry)
        except PermissionError:
            pass
for end in ("req", "rep"):
    try:
        posix_ipc.MessageQueue(f"/{stem}.g0.{end}"); opened.append(end)
    except posix_ipc.PermissionsError:
        pass
print("opened", opened)
try:
    link = door.connect(cluster)
    door.send(link, {"call": "list"})
    print("answered", door.receive(link)[0].keys())
except (MemcommonsError, OSError) as error:
    print("refused", type(error).__name__)
print("can remove", [item.name for item in names.leftovers() if stem in item.name and item.kind != "queue"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_gets_nothing(machine, python_process):
    """Trust: objects open to nobody else, orders taken from nobody else."""
    running = machine()
    with Peer(running.cluster):
        child = python_process(OTHER_USER, running.machine.stem, running.cluster)
        assert child.line() == "opened []"
        assert child.line().startswith("refused")
        assert child.line() == "can remove []"
