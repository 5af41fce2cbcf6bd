"""A file tree read again and again through the page cache, as grep, backup and build tools do.

Files are chosen with skew and read from their first page to their last in chunks, mmap-like (R41).  One operation is
one chunk of one file.  Each chunk is compared with the real file, read by another path: preadv of the machine's own.
"""

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from guests.workloads.base import GoingOn, Options, Workload, pages_of, sized
from guests.workloads.choice import Skewed
from guests.workloads.proof import WrongContent
from guests.workloads.tree import Original, choose, complain_if_changed, default_roots, packed_image
from shm.errors import UsageProblem

if TYPE_CHECKING:
    from guests.kernel import File


class ScanOptions(Options):
    path: str | None = None                           # the tree; None: Python's own library
    size: sized(64 << 10, 64 << 30) = 64 << 20        # type: ignore[valid-type]  # how much of it, in whole pages a file
    chunk: Annotated[int, Field(ge=1, le=256)] = 32   # pages of one operation at most
    theta: Annotated[float, Field(ge=0, le=2)] = 0.6  # skew of the choice of files

    @property
    def roots(self) -> list[Path]:
        return default_roots() if self.path is None else [Path(self.path)]


class Scan(Workload):
    """The scan.  `_at`: the file that is being read, and the page reached."""

    Options: ClassVar[type[Options]] = ScanOptions

    def __init__(self, options: ScanOptions, seed: int) -> None:
        super().__init__(options, seed)
        self._original = Original()
        self._random = Random(seed)
        self._at = (-1, 0)

    @classmethod
    def check(cls, options: ScanOptions) -> None:
        if options.path is not None and not Path(options.path).is_dir():
            raise UsageProblem(f"option 'path': {options.path!r} is not a folder; name one that holds files")
        if not choose(options.roots, pages_of(options.size)):
            raise UsageProblem(f"option 'path': no readable file of at most {options.size} bytes is in "
                               f"{', '.join(map(str, options.roots))}; name a folder that holds files")

    def set_up(self, going_on: GoingOn) -> None:
        self.check(self.options)
        self._packed = choose(self.options.roots, pages_of(self.options.size))
        with packed_image(self._packed, going_on) as image:
            disk = self.owns(image.disk(self.guest.counters, writable=False))
        self._files: list[File] = [
            self.kernel.open(disk, file.start, file.pages, size=file.size) for file in self._packed]
        self._choose = Skewed(len(self._files), self.options.theta, self._random).choose
        self._read_all(going_on)

    def _read_all(self, going_on: GoingOn) -> None:
        """Read each file once, so that the working set is in memory before the work begins."""
        for number, file in enumerate(self._packed):
            going_on()
            for index in range(0, file.pages, self.options.chunk):
                self._read(number, index)

    def operate(self) -> bool:
        number, index = self._at
        if number < 0:
            number, index = self._choose(), 0
        reached = index + self._read(number, index)
        self._at = (number, reached) if reached < self._packed[number].pages else (-1, 0)
        return True

    def _read(self, number: int, index: int) -> int:
        """Read and verify one chunk; return its pages."""
        file = self._packed[number]
        count = min(self.options.chunk, file.pages - index)
        found = np.ascontiguousarray(self._files[number].map(index, count))
        try:
            self.proof.pages(found, self._original.pages(file, index, count), file.path, index)
        except WrongContent:
            complain_if_changed(file)
            raise
        return count

    def close(self) -> None:
        self._original.close()
        super().close()
