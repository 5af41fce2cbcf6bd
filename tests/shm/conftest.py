"""A state map of one process's own, with a real lock."""

from collections.abc import Callable, Iterator

import numpy as np
import posix_ipc
import pytest

from shm.statemap import StateLock, StateMap


@pytest.fixture
def lock_name(cluster_name: str) -> Iterator[str]:
    """The name of a free state lock."""
    name = f"/memcommons.{cluster_name}.000000.g0.lock"
    posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode=0o600, initial_value=1).close()
    yield name
    posix_ipc.unlink_semaphore(name)


@pytest.fixture
def lock(lock_name: str) -> Iterator[StateLock]:
    held = StateLock(posix_ipc.Semaphore(lock_name), patience=0.05)
    yield held
    held.semaphore.close()


@pytest.fixture
def state_map(lock: StateLock) -> Callable[..., StateMap]:
    """Make a map: `state_map(usage, content)`, bytes a page each."""
    def make(usage: list[int] | np.ndarray, content: list[int] | np.ndarray, kvm: bool = False) -> StateMap:
        return StateMap(np.array(usage, np.uint8), np.array(content, np.uint8), lock, kvm)
    return make
