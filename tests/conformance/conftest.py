"""Machines for the rules: each rule is tried with every form of storage, by single calls and by multicalls.

    ample   a machine with room for whatever a rule puts
    tight   one that holds TIGHT ephemeral pages: the next new one evicts the oldest
    xen     as `ample`, with the quirks of Xen 4.2
"""

from collections.abc import Callable
from functools import partial

import pytest
from caller import FORMS, TIGHT, Caller

WAYS = ("single", "multicall")
AMPLE = 1024                 # frames


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
