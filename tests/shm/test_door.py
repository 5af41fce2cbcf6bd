"""The door: what goes through it, who gets in, and what junk does there: nothing."""

import array
import os
import socket

import msgpack
import pytest

from shm import door
from shm.abi import ABI_VERSION
from shm.errors import HypervisorGone, UsageProblem


@pytest.fixture
def link():
    """Two ends of a connection, as the door makes them."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair[1].settimeout(10)
    yield pair
    for end in pair:
        end.close()


def test_messages_and_descriptors_arrive_in_order(link):
    here, there = link
    reading, writing = os.pipe()
    door.send(here, {"call": "first", "n": [1, None, "ä"]}, (reading, writing))
    door.send(here, {})
    message, fds = door.receive(there)
    assert message == {"call": "first", "n": [1, None, "ä"]}
    assert door.receive(there) == ({}, [])
    os.write(fds[1], b"through")
    assert os.read(reading, 10) == b"through"
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in (reading, writing, *fds):
        os.close(fd)


def test_a_big_message_arrives_whole(link):
    message = {"guests": [{"name": f"guest-{n}", "counters": list(range(400))} for n in range(100)]}
    assert 60_000 < len(msgpack.packb(message)) < door.MESSAGE_LIMIT
    door.send(link[0], message)
    assert door.receive(link[1])[0] == message


JUNK = [b"\xc1", b"junk", msgpack.packb([1, 2]), msgpack.packb("attach"), msgpack.packb({"a": 1})[:-1],
        msgpack.packb({"a": 1}) + b"!", msgpack.packb({"filler": b"x" * door.MESSAGE_LIMIT})]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:12]))
def test_junk_is_said_to_be_junk_and_its_descriptors_are_closed(link, junk):
    """The descriptors that came with it are closed: the test's own look at what is left would find them."""
    fds = array.array("i", [link[0].fileno()])
    link[0].sendmsg([junk], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    with pytest.raises(HypervisorGone, match="junk"):
        door.receive(link[1])


def test_an_end_that_closed_is_said_to_be_closed(link):
    link[0].close()
    with pytest.raises(HypervisorGone, match="closed"):
        door.receive(link[1])


def test_an_end_that_says_nothing_in_time_is_gone(link):
    link[1].settimeout(0.02)
    with pytest.raises(HypervisorGone, match="nothing comes"):
        door.receive(link[1])


def test_a_name_in_use_is_refused_and_is_free_again_when_its_door_closes(cluster_name):
    first = door.listen(cluster_name)
    with pytest.raises(UsageProblem, match=f"{cluster_name}' is in use"):
        door.listen(cluster_name)
    first.close()
    door.listen(cluster_name).close()


def test_there_is_no_file_behind_a_door(cluster_name):
    with door.listen(cluster_name) as listener:
        assert listener.getsockname().startswith(b"\0memcommons/")


@pytest.mark.parametrize("name", ["no such cluster", "", "nobody-home"])
def test_connecting_to_nobody_is_one_clear_line(name):
    with pytest.raises(UsageProblem) as caught:
        door.connect(name)
    assert "\n" not in str(caught.value)


def test_the_peer_is_who_it_is(cluster_name):
    with door.listen(cluster_name) as listener, door.connect(cluster_name) as link:
        accepted, _ = listener.accept()
        assert door.peer(link) == door.peer(accepted) == (os.getpid(), os.geteuid())
        accepted.close()


# strangers


def test_a_door_kept_by_a_stranger_is_not_entered(cluster_name, monkeypatch):
    stranger = os.geteuid() + 1
    monkeypatch.setattr(door, "peer", lambda link: (1, stranger))
    with door.listen(cluster_name), pytest.raises(UsageProblem, match="no cluster"):
        door.connect(cluster_name)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
STRANGER = """
import os, socket, sys
import msgpack
from shm import door
os.setgroups([])
os.setuid(65534)
"""


@as_root
def test_a_name_squatted_by_another_user_is_not_taken_for_ours(cluster_name, python_process):
    squatter = python_process(STRANGER + """
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(f"\\0memcommons/0/{sys.argv[1]}")
listener.listen()
print("squats", flush=True)
sys.stdin.read()
""", cluster_name)
    assert squatter.line() == "squats"
    with pytest.raises(UsageProblem, match="no cluster"):
        door.connect(cluster_name)
    squatter.kill()


@as_root
def test_another_users_process_is_turned_away_at_our_door(machine, python_process):
    """It connects, as anybody can in the abstract namespace, and is hung up on before a word is heard."""
    cluster = machine().cluster
    stranger = python_process(STRANGER + """
link = door.connect(sys.argv[1])
try:
    link.send(msgpack.packb({"call": "stop"}))
    answer = link.recv(1000)
except ConnectionError:
    answer = b""
print("turned away" if not answer else answer, flush=True)
""", cluster)
    assert stranger.line() == "turned away"


# the hypervisor's side


@pytest.fixture
def visitor(machine):
    """A running machine, and a bare connection to its door."""
    running = machine()
    with door.connect(running.cluster) as link:
        yield running, link


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:12]))
def test_who_sends_junk_through_the_door_is_hung_up_on(visitor, junk):
    running, link = visitor
    link.send(junk)
    assert link.recv(10) == b""
    with door.connect(running.cluster) as other:
        door.send(other, {"call": "list"})
        assert door.receive(other)[0]["guests"] == []


GOOD = {"call": "attach", "abi": ABI_VERSION, "name": "g", "pages": 4, "max_pages": 4, "weight": 1}
BAD = {
    "no call": ({}, "unknown call None"),
    "an unknown call": ({"call": "open"}, "unknown call 'open'"),
    "a call that is a list": ({"call": ["list"]}, "unknown call"),
    "another ABI": (GOOD | {"abi": ABI_VERSION + 1},
                    f"ABI version {ABI_VERSION + 1} of the guest, {ABI_VERSION} of the hypervisor"),
    "no ABI": ({"call": "attach"}, "ABI version None"),
    "no name": (GOOD | {"name": ""}, "guest name ''"),
    "a name that is a number": (GOOD | {"name": 7}, "guest name 7"),
    "a long name": (GOOD | {"name": "x" * 65}, "1 to 64 printable"),
    "an unprintable name": (GOOD | {"name": "a\nb"}, "printable"),
    "no pages": (GOOD | {"pages": 0}, "pages 0 is not a number from 1"),
    "negative pages": (GOOD | {"pages": -1}, "pages -1"),
    "too many pages": (GOOD | {"pages": (1 << 28) + 1}, "pages 268435457"),
    "half a page": (GOOD | {"pages": 1.5}, "pages 1.5"),
    "true pages": (GOOD | {"pages": True}, "pages True"),
    "most pages as text": (GOOD | {"max_pages": "9"}, "max_pages '9'"),
    "a negative weight": (GOOD | {"weight": -1}, "weight -1"),
    "a list from nowhere": ({"call": "list", "from": "x"}, "from 'x' is not a number"),
    "a budget of nothing": ({"call": "set-budget"}, "budget None bytes"),
    "a budget below the floor": ({"call": "set-budget", "bytes": 63 * 4096}, "use 256 KiB to"),
    "a budget as text": ({"call": "set-budget", "bytes": "1GiB"}, "budget '1GiB'"),
    "a budget beyond the machine": ({"call": "set-budget", "bytes": 1 << 60}, "use 256 KiB to"),
}


@pytest.mark.parametrize(("message", "complaint"), BAD.values(), ids=list(BAD))
def test_what_cannot_be_is_answered_with_one_clear_line(visitor, message, complaint):
    _, link = visitor
    door.send(link, message)
    answer, fds = door.receive(link)
    assert set(answer) == {"error"} and fds == []
    assert complaint in answer["error"] and "\n" not in answer["error"]
    door.send(link, {"call": "list"})
    assert door.receive(link)[0]["guests"] == [], "the connection is good still, and nothing happened"


def test_descriptors_given_to_the_hypervisor_are_closed(visitor):
    _, link = visitor
    door.send(link, {"call": "list"}, (link.fileno(), link.fileno()))
    assert door.receive(link)[0]["guests"] == []


def test_a_connection_becomes_one_guest_and_no_second(visitor):
    _, link = visitor
    door.send(link, GOOD)
    answer, fds = door.receive(link)
    assert (answer["ok"], answer["pages"], len(fds)) == (True, 4, 5)
    for fd in fds:
        os.close(fd)
    door.send(link, GOOD | {"name": "h"})
    assert "is a guest's already" in door.receive(link)[0]["error"]
    door.send(link, GOOD)
    assert "attached already" in door.receive(link)[0]["error"]
    link.shutdown(socket.SHUT_RDWR)


def test_a_list_of_many_guests_comes_in_parts(still_machine):
    still = still_machine(budget=64)
    for n in range(30):
        still.guest(f"guest-{n}", pages=1)
    order, parts, start = still.machine.orders.table["list"], [], 0
    while start is not None:
        answer = order({"from": start})
        assert len(msgpack.packb(answer)) < door.MESSAGE_LIMIT
        parts.append([guest["name"] for guest in answer["guests"]])
        start = answer["next"]
    assert [len(part) for part in parts] == [24, 6]
    assert [name for part in parts for name in part] == [f"guest-{n}" for n in range(30)]
