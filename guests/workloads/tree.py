"""A real file tree, packed into one disk image: each file starts on a page of its own, as in any file system.

One image rather than a disk a file: a tree has thousands of files, and a process may hold 1024 descriptors.
The files themselves stay where they are; they are what every read is compared with.
"""

import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guests.workloads.image import Image
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

Stamp = tuple[int, int, int]    # inode, bytes, time of change in ns: what tells that a file was changed
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Packed:
    """One file of the tree: pages [start, start + pages) of the image."""

    path: str
    start: int
    pages: int
    size: int                   # bytes
    stamp: Stamp


def default_roots() -> list[Path]:
    """Return Python's own library and what is installed beside it."""
    paths = sysconfig.get_paths()
    return [Path(paths["stdlib"]), Path(paths["purelib"])]


def stamp_of(path: str) -> Stamp:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def walk(root: Path) -> Iterator[str]:
    """Return the readable files under `root` that hold anything, sorted; no compiled Python, no links."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK) and os.path.getsize(path):
                yield path


def choose(roots: list[Path], most_pages: int) -> list[Packed]:
    """Return the first files, in sorted order, that fit into `most_pages` together."""
    chosen: list[Packed] = []
    start = 0
    for path in (path for root in roots for path in walk(root)):
        stamp = stamp_of(path)
        pages = -(-stamp[1] // PAGE_SIZE)
        if start + pages <= most_pages:
            chosen.append(Packed(path, start, pages, stamp[1], stamp))
            start += pages
        if start == most_pages:
            break
    return chosen


def packed_image(files: list[Packed], going_on: Callable[[], None]) -> Image:
    """Return an image that holds `files`, each at its place."""
    image = Image(files[-1].start + files[-1].pages, "give the workload a smaller size")
    try:
        for file in files:
            going_on()
            _copy(file, image)
    except BaseException:
        image.close()
        raise
    return image


def _copy(file: Packed, image: Image) -> None:
    with open(file.path, "rb") as source:
        done = 0
        while done < file.size and (content := source.read(min(CHUNK, file.size - done))):
            image.write(file.start * PAGE_SIZE + done, content)
            done += len(content)
    complain_if_changed(file)


def complain_if_changed(file: Packed) -> None:
    """Raise UsageProblem when somebody changed the real file: then nothing can be said about what was read."""
    if stamp_of(file.path) != file.stamp:
        raise UsageProblem(f"{file.path} was changed while it was scanned; scan a tree that nobody writes to")


class Original:
    """The real file beside the one that is being scanned.  Holds one descriptor, of the file asked for last."""

    def __init__(self) -> None:
        self._fd, self._of = -1, ""

    def pages(self, file: Packed, index: int, count: int) -> np.ndarray:
        """Return pages of the real file, (count, 4096) uint8, zero-padded behind its end."""
        if self._of != file.path:
            self.close()
            self._fd, self._of = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC), file.path
        out = np.zeros((count, PAGE_SIZE), np.uint8)
        rest = out.data.cast("B")[:file.size - index * PAGE_SIZE]
        offset = index * PAGE_SIZE
        while rest and (done := os.preadv(self._fd, [rest], offset)):
            rest, offset = rest[done:], offset + done
        return out

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._of = -1, ""
