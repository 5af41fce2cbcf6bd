"""Pages that come along with one that is touched: nobody has touched them, so nothing may come of them.

A neighbour that finds no frame, that cannot be restored, or that is given up meanwhile, is left as it was.
"""

import pytest
from harness.hardware_guests import CONNECT, HOLD, IMPORTS, counts, discard, needs_hardware

pytestmark = needs_hardware

READ = """
libc = ctypes.CDLL(None)                         # it lets other threads run while one stands in a fault
def read(page):
    at = memory.base + page * 4096
    libc.memcmp(ctypes.c_void_p(at), ctypes.c_void_p(at + 8), ctypes.c_size_t(8))
"""


@pytest.fixture
def guest(hypervisor_process, python_process):
    """Start a hypervisor and a guest that runs `code`: (hypervisor, child)."""
    def start(code: str, **settings):
        hypervisor = hypervisor_process(**settings)
        return hypervisor, python_process(IMPORTS + CONNECT + READ + code + HOLD, hypervisor.cluster)
    return start


FEW_FRAMES = """
for page in range(0, 44, 2):                     # none a sequence
    view[page] = 1
view[50] = 1
view[51] = 1                                     # a sequence, with more pages behind it than there are frames
guest.essa(Essa.SET_UNUSED, np.arange(52, 64))   # they are given up
deadline = time.monotonic() + 1.5
while time.monotonic() < deadline:               # three deadlines of a touch that waits
    guest.ping()
say("served", sum(int(view[page, 7]) for page in (*range(0, 44, 2), 50, 51)))
"""


def test_one_that_finds_no_frame_is_not_waited_for(guest):
    hypervisor, child = guest(FEW_FRAMES, budget=27, swap=0, scheme="cmm2", fault_deadline=0.5)
    assert child.line() == "served 24"
    assert counts(hypervisor.cluster)["prefetched"] > 0, "else this test tests nothing"


UNRESTORABLE = """
known = {gfn: bytes([gfn]) * 4096 for gfn in range(12)}
guest.on_discard(lambda gfn: known[gfn])
guest.essa(Essa.SET_VOLATILE, np.arange(16))
say(all(view[page, 0] == page for page in range(12)))
while (guest.essa(Essa.GET_STATE, np.arange(12, 16)) != 0x0F).any():     # until the pager has said that it cannot
    pass
say("discarded as before")
say(view[12, 0])
"""


def test_one_that_cannot_be_restored_stays_discarded_until_somebody_touches_it(guest):
    hypervisor, child = guest(UNRESTORABLE)
    assert [child.line(), child.line()] == ["True", "discarded as before"]
    event = hypervisor.event()
    assert (event["event"], event["why"]) == (
        "guest-ended", "page 12 could not be restored: the restore function failed for page 12: KeyError: 12")


RELEASED = """
def slow(start, stop):
    time.sleep(0.3)
    return np.arange(start, stop, dtype="f8")
def numbers(start, stop):
    return np.arange(start, stop, dtype="f8")
busy, between = guest.array((512,), "f8", rebuild=slow), guest.array((512,), "f8")
used, idle = (guest.array((4 * 512,), "f8", rebuild=numbers) for _ in range(2))
threads = [threading.Thread(target=read, args=(page,)) for page in (0, 2, 3)]
for thread in threads:                           # the pager is busy with the first; the last has neighbours come along
    thread.start()
    time.sleep(0.05)
idle.release()
for thread in threads:
    thread.join()
say(bool((used.values == np.arange(4 * 512)).all()))
"""


def test_an_array_that_nobody_reads_can_be_released_while_its_pages_come_along(guest):
    _, child = guest(RELEASED)
    assert child.line() == "True"


OTHER_SOURCES = """
guest.on_discard(lambda gfn: b"\\xee" * 4096)
pad = guest.array((8 * 512,), "f8")                                      # pages 0 to 7
table = guest.array((32 * 512,), "f8", rebuild=lambda start, stop: np.arange(start, stop, dtype="f8"))
pad.release()
guest.essa(Essa.SET_STABLE, np.arange(8))
guest.essa(Essa.SET_VOLATILE, np.arange(8))
say(all(view[page, 0] == 0xEE for page in range(8)))
say(np.count_nonzero(table.values != np.arange(32 * 512)))
"""


def test_each_is_restored_by_who_knows_it(guest):
    _, child = guest(OTHER_SOURCES)
    assert [child.line(), child.line()] == ["True", "0"]


def test_one_that_was_made_stable_meanwhile_is_asked_for_as_if_touched(guest):
    """Make-stable finds it resident while the pager is at it, so it must come; it cannot, and its guest is ended."""
    hypervisor, child = guest("""
def restore(gfn):
    if gfn == 9:
        time.sleep(1)                            # so that it is made stable meanwhile
        raise LookupError("never")
    return bytes([gfn]) * 4096
guest.on_discard(restore)
guest.essa(Essa.SET_VOLATILE, np.arange(16))
toucher = threading.Thread(target=lambda: [read(page) for page in (7, 8)])
toucher.start()
toucher.join()
while guest.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 9) & 3:
    pass
say("stable")
""")
    assert child.line() == "stable"
    event = hypervisor.event()
    assert event["event"] == "guest-ended" and "page 9 could not be restored" in event["why"]


def test_a_discard_of_what_came_along_takes_it_like_any(guest):
    hypervisor, child = guest("""
guest.on_discard(lambda gfn: bytes([gfn]) * 4096)
guest.essa(Essa.SET_VOLATILE, np.arange(32))
for turn in range(3):
    say(all(view[page, 9] == page for page in range(32)))
    sys.stdin.readline()
""")
    for _ in range(3):
        assert child.line() == "True"
        discard(hypervisor.cluster, 0, 32)
        child.say("go on")
