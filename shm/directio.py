"""Files without the machine's page cache: O_DIRECT, through a bounce buffer that lies on pages.

The kernel wants memory, offset and length in whole sectors; whole pages at page addresses are that everywhere.  The
flag belongs to the open file: whoever has the descriptor from us must read so too.
"""

import errno
import fcntl
import mmap
import os
import tempfile
from contextlib import suppress

from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

BOUNCE_PAGES = 256


class DirectFile:
    """Reads and writes of an open file, past the page cache.  The descriptor stays its owner's."""

    def __init__(self, fd: int, where: str) -> None:
        """Set the flag; UsageProblem with one line where the file system does not take it."""
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
        except OSError as error:
            raise UsageProblem(f"direct = true: the file system of {where} takes no O_DIRECT ({error.strerror}); use a "
                               f"disk's, or direct = false") from error
        self._fd = fd
        self._bounce = memoryview(mmap.mmap(-1, BOUNCE_PAGES * PAGE_SIZE))

    def read(self, out: memoryview, offset: int) -> int:
        """Fill `out`, whole pages from a page's offset; return how many bytes the file had.  The rest reads zero."""
        found = 0
        while out:
            part = self._bounce[:min(len(out), len(self._bounce))]
            done = os.preadv(self._fd, [part], offset)
            out[:done] = part[:done]
            found += done
            if done % PAGE_SIZE or not done:                 # the end of the file
                out[done:] = bytes(len(out) - done)
                break
            out, offset = out[done:], offset + done
        return found

    def write(self, content: memoryview, offset: int) -> None:
        """Write `content`, whole pages to a page's offset; OSError when the file takes no more."""
        while content:
            size = min(len(content), len(self._bounce))
            self._bounce[:size] = content[:size]
            done = os.pwritev(self._fd, [self._bounce[:size]], offset)
            if done % PAGE_SIZE:                             # the rest would not lie on a page any more
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            content, offset = content[done:], offset + done


def check_direct(folder: str) -> None:
    """Raise UsageProblem where files of `folder` cannot be had past the page cache."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):   # who makes a file there says so
        with tempfile.TemporaryFile(dir=folder) as file:
            os.ftruncate(file.fileno(), PAGE_SIZE)
            DirectFile(file.fileno(), folder).read(memoryview(bytearray(PAGE_SIZE)), 0)
