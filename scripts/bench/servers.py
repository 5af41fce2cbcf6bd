"""memcached and redis over a UNIX socket, as fast as a client in Python can drive them.

The client speaks the protocol on a bare socket: requests are prepared, pages are sent from where they lie (sendmsg), a
reply is received whole into one buffer, and the pages are used there.  A put is a set; a set over a known key replaces,
so nothing is deleted between two pairs, which spares the server what an exclusive get does here.

    memcached    meta commands; many sets are quiet, one `mn` behind them is answered; many gets are one multi-get
    redis        SET, GET, MSET, MGET

All waits end: SO_RCVTIMEO and SO_SNDTIMEO hold for every call.
"""

import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from pages import PAGE

DEADLINE_S = 10
_KEYS = [b"p%07d" % number for number in range(1 << 12)]
_END = b"\r\n"


class NotInstalled(Exception):
    """A server's program is not here; the text says which Debian package has it."""


class Server:
    """One running server and one connection to it.  `pair` puts a batch of pages and gets it back."""

    def __init__(self, name: str, pid: int | None, link: socket.socket) -> None:
        self.name, self.pid, self.link = name, pid, link

    def load(self, pages: np.ndarray, size: int) -> None:
        """Prepare the requests of all batches of `size` pages."""
        batches = [range(at, at + size) for at in range(0, len(pages) - size + 1, size)]
        self._puts = [self._put(batch, pages) for batch in batches]
        self._gets = [self._get([_KEYS[number] for number in batch]) for batch in batches]
        self._stored, self._head, self._value, self._tail = self._replies(size)
        record = len(self._value) + PAGE + len(_END)
        self._reply = bytearray(len(self._head) + size * record + len(self._tail))
        self._got = np.ndarray((size, PAGE), np.uint8, self._reply, len(self._head) + len(self._value), (record, 1))
        self._ack = bytearray(len(self._stored))

    def pair(self, batch: int) -> np.ndarray:
        self._ask(self._puts[batch], self._ack)
        if self._ack != self._stored:
            raise SystemExit(f"{self.name} answered {bytes(self._ack)!r} to a put")
        self._ask(self._gets[batch], self._reply)
        return self._got

    def _ask(self, request: Sequence[bytes | memoryview], reply: bytearray) -> None:
        self.link.sendmsg(request)
        if self.link.recv_into(reply, len(reply), socket.MSG_WAITALL) != len(reply):
            raise SystemExit(f"{self.name} answered short: {bytes(reply[:60])!r}")

    # the protocol

    def _put(self, batch: range, pages: np.ndarray) -> list[bytes | memoryview]:
        raise NotImplementedError

    def _get(self, keys: list[bytes]) -> list[bytes]:
        raise NotImplementedError

    def _replies(self, size: int) -> tuple[bytes, bytes, bytes, bytes]:
        """Return the reply to a put; head, what stands ahead of each page, and tail of the reply to a get."""
        raise NotImplementedError


def _woven(heads: list[bytes], batch: range, pages: np.ndarray, tail: bytes) -> list[bytes | memoryview]:
    """Return head, page, head, page, ..., tail, each page ended; the pages are not copied."""
    parts: list[bytes | memoryview] = []
    for at, (head, number) in enumerate(zip(heads, batch, strict=True)):
        parts += [(_END if at else b"") + head, memoryview(pages[number])]
    return [*parts, _END + tail]


class Memcached(Server):
    def _put(self, batch: range, pages: np.ndarray) -> list[bytes | memoryview]:
        quiet = b" q" if len(batch) > 1 else b""
        heads = [b"ms %b %d%b\r\n" % (_KEYS[number], PAGE, quiet) for number in batch]
        return _woven(heads, batch, pages, b"mn\r\n" if quiet else b"")

    def _get(self, keys: list[bytes]) -> list[bytes]:
        return [b"get " + b" ".join(keys) + _END] if len(keys) > 1 else [b"mg " + keys[0] + b" v\r\n"]

    def _replies(self, size: int) -> tuple[bytes, bytes, bytes, bytes]:
        if size == 1:
            return b"HD\r\n", b"", b"VA %d\r\n" % PAGE, b""
        return b"MN\r\n", b"", b"VALUE %b 0 %d\r\n" % (_KEYS[0], PAGE), b"END\r\n"


class Redis(Server):
    def _put(self, batch: range, pages: np.ndarray) -> list[bytes | memoryview]:
        words = [_bulk(_KEYS[number]) + b"$%d\r\n" % PAGE for number in batch]
        verb = _bulk(b"MSET" if len(batch) > 1 else b"SET")
        return _woven([b"*%d\r\n" % (1 + 2 * len(batch)) + verb + words[0], *words[1:]], batch, pages, b"")

    def _get(self, keys: list[bytes]) -> list[bytes]:
        verb = _bulk(b"MGET" if len(keys) > 1 else b"GET")
        return [b"*%d\r\n" % (1 + len(keys)) + verb + b"".join(_bulk(key) for key in keys)]

    def _replies(self, size: int) -> tuple[bytes, bytes, bytes, bytes]:
        return b"+OK\r\n", b"*%d\r\n" % size if size > 1 else b"", b"$%d\r\n" % PAGE, b""


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


@contextmanager
def memcached(folder: str) -> Iterator[Server]:
    path = Path(folder) / "memcached"
    with _running(["memcached", "-s", str(path), "-a", "0700", "-u", "root", "-t", "1", "-m", "256"],
                  "memcached") as pid, closing(_connect(path)) as link:
        yield Memcached("memcached", pid, link)


@contextmanager
def redis(folder: str) -> Iterator[Server]:
    path = Path(folder) / "redis"
    with _running(["redis-server", "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700",
                   "--save", "", "--appendonly", "no", "--dir", folder], "redis-server") as pid, \
            closing(_connect(path)) as link:
        yield Redis("redis", pid, link)


@contextmanager
def _running(command: list[str], package: str) -> Iterator[int]:
    program = shutil.which(command[0])
    if program is None:
        raise NotInstalled(f"{command[0]} is not here: apt-get install {package}")
    with subprocess.Popen([program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.kill()                       # nothing of it is kept


def _connect(path: Path) -> socket.socket:
    """Connect as soon as the server listens."""
    link, deadline = socket.socket(socket.AF_UNIX), time.monotonic() + DEADLINE_S
    for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        link.setsockopt(socket.SOL_SOCKET, way, struct.pack("ll", DEADLINE_S, 0))
    while True:
        try:
            link.connect(str(path))
            return link
        except OSError as error:
            if time.monotonic() > deadline:
                link.close()
                raise SystemExit(f"{path.name} did not listen within {DEADLINE_S} s: {error}") from error
            time.sleep(0.01)
