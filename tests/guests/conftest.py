"""What the guest tests share: `fakes` to import, and disks that are closed again."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from guests.disk import Disk

sys.path.append(str(Path(__file__).parent))          # for `fakes`, in whatever way pytest imports

from fakes import block_contents


@pytest.fixture
def new_disk(tmp_path: Path) -> Iterator[Callable[..., Disk]]:
    """Makes disks; `content=True` fills every block with bytes of its own."""
    made = []

    def new(pages: int, counters: np.ndarray, content: bool = False, **options) -> Disk:
        disk = Disk.create(pages, counters, folder=str(tmp_path), **options)
        made.append(disk)
        if content:
            disk.write(0, block_contents(range(pages)))
            counters[:] = 0
        return disk

    yield new
    for disk in made:
        disk.close()
