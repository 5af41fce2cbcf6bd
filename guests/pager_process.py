"""A guest's pager as the guest sees it: start it, tell it of disks and restore functions, see it end.

Restore functions are copied to the pager (cloudpickle: closures and lambdas too).  So a function works with what it
referred to when it was registered, and can touch neither the guest nor its memory: what refers to them is refused.
"""

import io
import os
import pickle
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from guests.sources import Sources
from shm import paging
from shm.errors import BrokenInvariant, MemcommonsError, UsageProblem

ANSWER_S = 30.0              # for the pager to take a function over: it may have to import a library first
END_S = 5.0                  # for the pager to go once the guest has closed its end
_ROOT = str(Path(__file__).resolve().parent.parent)
# No site hooks, no numpy: the path of this process is handed over as it is.
_START = "import sys; sys.path[:] = {path!r}; from guests.pager import main; sys.exit(main(sys.argv[1:]))"


class PagerProcess:
    """The pager of one guest.  `host` is the hypervisor's end of its connection, to be handed over and closed."""

    def __init__(self, pages: int) -> None:
        self.host, self._pagers_host = _pair()
        self._link, self._pagers_link = _pair()
        self._link.settimeout(ANSWER_S)
        self.sources = Sources(pages, self._name_disk)
        self._pages = pages
        self._base = 0                                       # of the guest's memory in this process
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, uffd: int, counters: int, base: int) -> None:
        """Start the process, which holds `uffd` and the guest's counters from then on."""
        fds = (self._pagers_host.fileno(), self._pagers_link.fileno(), uffd, self.sources.object.fd, counters)
        self._base = base
        argv = [*self.program(), *map(str, fds), str(self._pages), str(os.getpid()), str(base)]
        self._process = subprocess.Popen(argv, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._pagers_host.close()
        self._pagers_link.close()

    @staticmethod
    def program() -> list[str]:
        """Return the command that is a pager, to be followed by its descriptors and numbers."""
        path = [_ROOT, *(entry for entry in sys.path if entry)]
        return [sys.executable, "-S", "-E", "-c", _START.format(path=path)]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def restore(self, first: int, pages: int, function: Any) -> None:
        """Let `function(gfn, pages) -> bytes` restore pages from `first` on; UsageProblem when it cannot go there."""
        try:
            blob = self._pickled(function)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, MemcommonsError) as error:
            raise UsageProblem(f"this restore function cannot be copied to the pager, which calls it in hardware mode: "
                               f"{' '.join(str(error).split())}") from error
        fd = os.memfd_create("memcommons-function", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(blob)
            self._tell(paging.FUNCTION, (first, pages), (fd,))
        finally:
            os.close(fd)

    def _pickled(self, function: Any) -> bytes:
        blob = io.BytesIO()
        _Copying(blob, self._base, self._pages * paging.PAGE).dump(function)
        return blob.getvalue()

    def forget(self, first: int, pages: int) -> None:
        """Let the functions for these pages be called no more, and their copies go."""
        self._tell(paging.FUNCTION, (first, pages), ())

    def moved(self, base: int) -> None:
        """Say that the guest's memory lies at another address now."""
        self._base = base
        self._tell(paging.MOVED, (base,), ())

    def _name_disk(self, number: int, fd: int, cost: tuple[int, ...] = ()) -> None:
        self._tell(paging.DISK, (number, *cost), (fd,))

    def _tell(self, kind: int, words: tuple[int, ...], fds: tuple[int, ...]) -> None:
        try:
            socket.send_fds(self._link, [paging.encode(kind, words)], fds)
            answer = paging.decode(self._link.recv(paging.MESSAGE_LIMIT + paging.TEXT_LIMIT), (paging.DONE,))
        except (OSError, paging.Malformed) as error:
            raise BrokenInvariant(f"the pager does not answer: {error}") from error
        if answer.text:
            raise UsageProblem(f"the pager refused: {answer.text}")

    def leave(self) -> None:
        self._link.close()

    def close(self) -> None:
        """Close our ends, and see the process out."""
        for link in (self.host, self._link, self._pagers_host, self._pagers_link):
            link.close()
        self.sources.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            self._process.kill()
            self._process.wait()


class _Copying(cloudpickle.Pickler):
    """Copies functions, and refuses views of guest memory: a copy of their content is not what they are."""

    def __init__(self, file: io.BytesIO, base: int, size: int) -> None:
        super().__init__(file)
        self._memory = range(base, base + size)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray | memoryview) and np.asarray(obj).ctypes.data in self._memory:
            raise UsageProblem(f"it refers to a {type(obj).__name__} that lies in guest memory")
        return super().reducer_override(obj)


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
