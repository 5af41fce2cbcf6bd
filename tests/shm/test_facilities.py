"""What a processor can do, and its exceptions in their order (R12)."""

import pytest

from shm.errors import OperationException, PrivilegedOperation, SpecificationException
from shm.facilities import CMMA, Facilities

ORDERS = {"architected": range(8), "kvm": range(8), "off": range(0)}


@pytest.mark.parametrize("setting", CMMA)
def test_orders_of_each_setting(setting):
    assert CMMA[setting].orders == ORDERS[setting]
    assert CMMA[setting].kvm == (setting == "kvm")


CASES = [                    # cmma, no_dat, problem state, order -> exception
    (False, True, True, 9, OperationException), (True, True, True, 9, PrivilegedOperation),
    (True, True, False, 9, SpecificationException), (True, True, False, 7, None),
    (True, False, False, 7, SpecificationException), (True, False, False, 6, None),
    (True, True, False, -1, SpecificationException), (True, True, False, "1", SpecificationException),
    (True, True, False, None, SpecificationException), (True, True, False, 1.5, SpecificationException),
]


@pytest.mark.parametrize(("cmma", "no_dat", "problem", "order", "error"), CASES)
def test_exceptions(cmma, no_dat, problem, order, error):
    facilities = Facilities(cmma=cmma, no_dat=no_dat)
    if error is None:
        facilities.check(order, problem)
        return
    with pytest.raises(error):
        facilities.check(order, problem)


def test_hints_are_offered_where_there_is_an_instruction_to_give_them():
    features = frozenset({"hint-unused", "hint-volatile", "cleancache"})
    assert CMMA["kvm"].offered(features) == features
    assert CMMA["off"].offered(features) == {"cleancache"}
