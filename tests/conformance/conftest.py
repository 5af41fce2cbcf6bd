"""Machines for the rules: each rule is tried with every form of storage, by single calls and by multicalls.

    ample   a machine with room for whatever a rule puts
    tight   one that holds TIGHT ephemeral pages: the next new one evicts the oldest
    xen     as `ample`, with the quirks of Xen 4.2

And for the rules of CMM2, each of them in both fault modes:

    world           a guest of a hypervisor that is another process; `new_world` makes one to measure
    kernel_guest    makes such guests with a kernel on all of their memory
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from caller import FORMS, TIGHT, Caller
from harness.children import HypervisorProcess
from kernel_guests import KernelGuest
from worlds import MODES, World, why_no_hardware

from shm.abi import PAGE_SIZE

WAYS = ("single", "multicall")
AMPLE = 1024                 # frames
COMMON_SIZES = {"budget": 1024, "swap": 1024}        # pages
COMMON_SCHEME = "cmm2"


@pytest.fixture(params=FORMS)
def form(request) -> str:
    return request.param


@pytest.fixture(params=WAYS)
def way(request) -> str:
    return request.param


@pytest.fixture
def ample(still_machine, form):
    return still_machine(AMPLE, "tmem", 0, form=form)


@pytest.fixture
def tight(still_machine, form):
    return still_machine(AMPLE, "tmem", 0, form=form, ephemeral_pages=TIGHT)


@pytest.fixture
def xen(still_machine, form):
    return still_machine(AMPLE, "tmem", 0, form=form, quirks="xen-4.2")


@pytest.fixture
def new_caller(way) -> Callable[..., Caller]:
    """`new_caller(machine)`: a guest of it that may put 256 persistent pages."""
    return partial(Caller, way=way, max_pages=256)


@pytest.fixture
def a(ample, new_caller) -> Caller:
    """A guest of an ample machine."""
    return new_caller(ample)


@pytest.fixture
def b(ample, a, new_caller) -> Caller:
    """A second guest of the same."""
    return new_caller(ample)


@pytest.fixture(params=MODES)
def mode(request) -> str:
    """The fault mode of a world; hardware is left out, with the reason, where the kernel gives no userfaultfd."""
    if request.param == "hardware" and (why := why_no_hardware()):
        pytest.skip(why)
    return request.param


@pytest.fixture(scope="module")
def common_hypervisor() -> Iterator[HypervisorProcess]:
    """A hypervisor of COMMON settings for the worlds of one module, one after the other: a start is dear."""
    name = f"t-{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}-{secrets.token_hex(6)}"
    child = HypervisorProcess({"cluster": name} | {key: value * PAGE_SIZE for key, value in COMMON_SIZES.items()}
                              | {"scheme": COMMON_SCHEME})
    assert child.event()["event"] == "ready"
    yield child
    child.stop()


@pytest.fixture
def new_world(mode, common_hypervisor, hypervisor_process) -> Iterator[Callable[..., World]]:
    """Makes worlds: `new_world(pages=64, budget=1024, scheme="cmm2", **settings of the hypervisor)`.

    One with settings of its own, or `alone`, has a hypervisor of its own.
    """
    with ExitStack() as stack:
        def new(pages: int = 64, budget: int = 1024, scheme: str = COMMON_SCHEME, max_pages: int | None = None,
                alone: bool = False, **settings: Any) -> World:
            common = not alone and not settings and (budget, scheme) == (COMMON_SIZES["budget"], COMMON_SCHEME)
            host = common_hypervisor if common else hypervisor_process(budget, scheme, **settings)
            made = World(host, mode, pages, max_pages)
            stack.callback(made.close)
            return made
        yield new


@pytest.fixture
def world(new_world) -> World:
    """A guest of 64 pages, in either mode, with room for all of them."""
    return new_world()


@pytest.fixture
def kernel_guest(new_world, tmp_path: Path) -> Iterator[Callable[..., KernelGuest]]:
    """Makes such guests: `kernel_guest(scheme="cmm2", pages=128, budget=1024, **options of the kernel)`."""
    made: list[KernelGuest] = []

    def new(scheme: str = "cmm2", pages: int = 128, budget: int = 1024, **options: Any) -> KernelGuest:
        made.append(KernelGuest(new_world(pages, budget, scheme, 2 * pages), tmp_path, **options))
        return made[-1]
    yield new
    for guest in made:
        guest.close()
