"""ESSA, diag 10 and reset as hypercalls of a guest that lies, and what the hypervisor makes of a release list."""

import numpy as np
import pytest
from harness.instruction import MODES, guest_of, put
from harness.pages import assert_sound, page, states

from shm.abi import Op, Status
from shm.counters import HostCount
from shm.pagestate import Essa
from shm.releaselist import RELEASES


@pytest.fixture(params=MODES)
def guest(still_machine, request):
    return guest_of(still_machine, "trap", request.param)


def call(guest, op, gfns, *arguments):
    guest.transfer.gfns[:len(gfns)] = gfns
    reply = guest.channel.call(op, *arguments)
    return reply.status, reply.value


LIES = {
    "a page beyond": (Op.ESSA, [0, 32], (2, 2), Status.EFAULT),
    "a page below": (Op.ESSA, [0, -1], (2, 2), Status.EFAULT),
    "the largest number": (Op.ESSA, [1 << 62], (2, 1), Status.EFAULT),
    "no page": (Op.ESSA, [], (2, 0), Status.EFAULT),
    "a page twice": (Op.ESSA, [3, 1, 3], (2, 3), Status.EINVAL),
    "an order beyond": (Op.ESSA, [1], (8, 1), Status.EINVAL),
    "a huge order": (Op.ESSA, [1], ((1 << 32) - 1, 1), Status.EINVAL),
    "an order that is no number of 32 bits": (Op.ESSA, [1], (1 << 32, 1), Status.EINVAL),
    "more pages than fit": (Op.ESSA, [], (2, 257), Status.EINVAL),
    "release beyond": (Op.RELEASE, [32], (1,), Status.EFAULT),
    "release twice": (Op.RELEASE, [1, 1], (2,), Status.EINVAL),
    "release nothing": (Op.RELEASE, [], (0,), Status.EFAULT),
    "reset with an argument": (Op.RESET, [], (1,), Status.EINVAL),
}


@pytest.mark.parametrize(("op", "gfns", "arguments", "status"), LIES.values(), ids=list(LIES))
def test_a_lie_is_refused_and_alters_nothing(guest, op, gfns, arguments, status):
    for gfn, state in enumerate(["Sr", "Vr", "Sp", "Ur"]):
        put(guest, gfn, state, dirty=True)
    usage, content = guest.map.usage.copy(), guest.map.content.copy()
    errors = guest.counts.errors
    assert call(guest, op, gfns, *arguments) == (status, 0)
    assert (guest.map.usage == usage).all() and (guest.map.content == content).all()
    assert guest.counts.errors == errors + 1
    assert_sound(guest)


@pytest.mark.parametrize("op", [Op.ESSA, Op.RELEASE, Op.RESET])
def test_while_the_lock_is_held_nothing_is_done_and_that_is_said(guest, op):
    put(guest, 1, "Vr", dirty=True)
    arguments = {Op.ESSA: (1, 1), Op.RELEASE: (1,), Op.RESET: ()}[op]
    assert guest.map.lock.acquire(0)
    assert call(guest, op, [1], *arguments) == (Status.NO, 0)
    assert guest.domain.lock_missed_since is not None
    guest.map.lock.release()
    assert states(guest, 1) == ["Vr"]
    assert call(guest, op, [1], *arguments)[0] == Status.OK


def test_without_cmma_the_call_is_not_there(still_machine):
    guest = guest_of(still_machine, cmma="off")
    assert call(guest, Op.ESSA, [1], 1, 1) == (Status.ENODEV, 0)


def test_a_trapped_release_frees_the_copy_at_once(guest):
    put(guest, 3, "Sp", dirty=True)
    guest.processor.essa_one(Essa.SET_UNUSED, 3)
    assert guest.machine.swap.used == 0
    assert guest.domain.counts[HostCount.RELEASED] == 1
    assert_sound(guest)


@pytest.mark.parametrize("order", [Essa.SET_STABLE, Essa.SET_STABLE_NODAT])
def test_a_trapped_order_finds_what_its_own_list_still_names(still_machine, order):
    """As KVM has it: the instruction first, then the list; a page that this very order makes stable is kept."""
    guest = guest_of(still_machine, "shared", "kvm")
    put(guest, 3, "Sp", dirty=True)
    guest.processor.essa_one(Essa.SET_UNUSED, 3)
    guest.processor.hint_path = "trap"
    assert guest.processor.essa_one(order, 3) & 0x0F == 0x07
    assert (states(guest, 3), guest.memory.read(3)) == (["Sp"], page(3))


SCRIBBLES = {
    "a count beyond": ([3], 1 << 40), "a negative count": ([3], -5), "pages beyond": ([1 << 60, 32, -1, 3], 4),
    "a page many times": ([3] * RELEASES, RELEASES), "pages that were never released": (range(32), 32),
}


@pytest.mark.parametrize(("gfns", "count"), SCRIBBLES.values(), ids=list(SCRIBBLES))
def test_a_list_that_lies_frees_nothing_but_what_is_void(still_machine, gfns, count):
    guest = guest_of(still_machine, "shared", "kvm")
    for gfn, state in enumerate(["Sr", "Vr", "Sp", "Sp", "Ur", "Vz", "Pr"]):
        put(guest, gfn, state, dirty=True)
    guest.processor.essa_one(Essa.SET_UNUSED, 3)
    guest.transfer.releases[:len(gfns)] = gfns
    guest.transfer.releases[RELEASES] = count
    guest.channel.call(Op.PING)
    assert states(guest, *range(7)) == ["Sr", "Vr", "Sp", "Uz", "Ur", "Vz", "Pr"]
    assert guest.machine.swap.used == (2 if count < 0 else 1), "the copy of the page that is still listed"
    assert guest.memory.read(2) == page(2)
    assert_sound(guest)


def test_a_list_whose_lock_is_held_is_processed_at_the_next_exit(still_machine):
    guest = guest_of(still_machine, "shared", "kvm")
    put(guest, 3, "Sp", dirty=True)
    guest.processor.essa_one(Essa.SET_UNUSED, 3)
    assert guest.map.lock.acquire(0)
    guest.channel.call(Op.PING)
    guest.map.lock.release()
    assert (guest.machine.swap.used, len(guest.processor.releases)) == (1, 1)
    guest.channel.call(Op.PING)
    assert (guest.machine.swap.used, len(guest.processor.releases)) == (0, 0)


def test_a_page_that_is_held_keeps_its_frame(guest):
    put(guest, 3, "Sr", dirty=True)
    guest.domain.holds[3] = 1
    assert guest.processor.release([3, 4]) == 0
    assert states(guest, 3) == ["Sr"]
    guest.domain.holds[3] = 0
    assert guest.processor.release(np.array([4, 3])) == 1
