"""The comparison: what is counted, and what is said of a wrong page."""

import numpy as np
import pytest

from guests.workloads.proof import Proof, WrongContent
from shm.abi import PAGE_SIZE
from shm.counters import Count


@pytest.fixture
def counters() -> np.ndarray:
    return np.zeros(64, np.uint64)


def counted(counters: np.ndarray) -> tuple[int, int]:
    return int(counters[Count.PAGES_VERIFIED]), int(counters[Count.MISMATCHES])


def pages(count: int) -> np.ndarray:
    return np.arange(count * PAGE_SIZE).astype(np.uint8).reshape(count, PAGE_SIZE) + np.arange(
        count, dtype=np.uint8)[:, None]


def test_right_pages_are_counted(counters: np.ndarray) -> None:
    proof = Proof(counters)
    proof.page(bytes(PAGE_SIZE), bytes(PAGE_SIZE), "x", 0)
    proof.pages(pages(3), pages(3), "x", 0)
    proof.verified(2)
    proof.holds(True, "never said")
    assert counted(counters) == (6, 0)


@pytest.mark.parametrize(("row", "byte"), [(0, 0), (1, 4095), (2, 77)])
@pytest.mark.parametrize(("first", "shown"), [(10, {0: 10, 1: 11, 2: 12}), (np.array([5, 9, 2]), {0: 5, 1: 9, 2: 2})])
def test_one_wrong_byte_is_found_and_named(counters: np.ndarray, row: int, byte: int, first, shown) -> None:
    found = pages(3)
    found[row, byte] ^= 1
    with pytest.raises(WrongContent) as error:
        Proof(counters).pages(found, pages(3), "file x", first)
    assert str(error.value) == (f"wrong page: file x, page {shown[row]}: byte {byte} of 4096 is "
                                f"{found[row, byte]:#04x} where {pages(3)[row, byte]:#04x} was written")
    assert counted(counters) == (3, 1)


def test_every_wrong_page_is_counted(counters: np.ndarray) -> None:
    with pytest.raises(WrongContent, match="and 2 more pages"):
        Proof(counters).pages(pages(4) ^ np.array([1, 0, 1, 1], np.uint8)[:, None], pages(4), "x", 0)
    assert counted(counters) == (4, 3)


@pytest.mark.parametrize("wrong", [b"", b"\1" * PAGE_SIZE, bytes(PAGE_SIZE - 1), bytes(PAGE_SIZE - 1) + b"\1"])
def test_a_wrong_single_page_is_found(counters: np.ndarray, wrong: bytes) -> None:
    with pytest.raises(WrongContent, match=r"^wrong page: x"):
        Proof(counters).page(wrong, bytes(PAGE_SIZE), "x", 3)
    assert counted(counters) == (1, 1)


def test_too_few_pages_are_wrong(counters: np.ndarray) -> None:
    with pytest.raises(WrongContent, match="8192 bytes came where 12288 were expected"):
        Proof(counters).pages(pages(2), pages(3), "x", 0)


def test_a_broken_claim_is_a_mismatch(counters: np.ndarray) -> None:
    with pytest.raises(WrongContent, match=r"^it does not add up$"):
        Proof(counters).holds(False, "it does not add up")
    with pytest.raises(WrongContent, match=r"^its checksum$"):
        Proof(counters).verified(1, "its checksum")
    assert counted(counters) == (1, 2)
