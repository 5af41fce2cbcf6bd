"""The stream in which one guest's tmem is saved: to a file, a pipe, or another cluster.

    header    what this is, its version, the page size
    client    the guest: name, weight, cap, form, frozen, max_pages, token; once more at the end, as it is then
    pool      number, flags, uuid, pages; before any page of it
    pages     up to a message's worth of pages of one pool: their handles, then their bytes
    gone      handles of one pool that hold nothing any more
    end       the pools as they are at the end, each with its pages

A record is kind, length, body and xxh64 of these.  Each sum is seeded with the one before, so a record that is missing,
doubled or out of order is as bad as a damaged one.  The reader trusts nothing: whatever the bytes are, it gives checked
records or raises BadStream with the offset of the record that is bad.  A sum is no seal: who can write a stream can
write a lie, and what it may say is bounded by what a guest may do.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack
import numpy as np
import xxhash

from hypervisor.tmem.forms import Form
from shm.abi import MAX_GUEST_PAGES, MAX_POOLS, PAGE_SIZE, U32, U64
from shm.errors import UsageProblem

MAGIC = b"memcommons tmem\n"
VERSION = 1
NAME_LIMIT, TOKEN_DIGITS = 64, 32
RECORD_LIMIT = 1 << 17       # bytes of a body; longer is damage, and nobody waits for the rest
_HEADER, _HEAD, _SUM, _GROUP = struct.Struct("<16sII"), struct.Struct("<II"), struct.Struct("<Q"), struct.Struct("<II")
HEADER = _HEADER.pack(MAGIC, VERSION, PAGE_SIZE)
HANDLE = np.dtype([("oid", "<u8", (3,)), ("index", "<u4")])
_PAGE_COST = HANDLE.itemsize + PAGE_SIZE
_RECORD_COST = _HEAD.size + _GROUP.size + _SUM.size


class Kind(IntEnum):
    CLIENT = 1
    POOL = 2
    PAGES = 3
    GONE = 4
    END = 5


class ClientFacts(NamedTuple):
    name: str
    weight: int
    cap: int
    form: int
    frozen: bool
    max_pages: int
    token: str               # whoever shows it may adopt what was saved


class PoolFacts(NamedTuple):
    number: int
    flags: int
    uuid: tuple[int, int]
    pages: int


class Pages(NamedTuple):
    """Pages of one pool; without `content` they are gone."""

    pool: int
    oids: np.ndarray         # (n, 3) uint64
    indexes: np.ndarray      # (n,) uint64
    content: np.ndarray      # (n, 4096), read-only


class Record(NamedTuple):
    kind: Kind
    offset: int              # of the record in the stream
    value: Any               # ClientFacts, PoolFacts, Pages, or a tuple of PoolFacts at the end


class BadStream(UsageProblem):
    """A stream that cannot be what a hypervisor wrote; `offset` is that of the bad record."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"the stream is damaged at byte {offset}: {why}")
        self.offset = offset


def pages_within(room: int) -> int:
    """Return how many handles may be sent in `room` bytes, whether they are pages or gone."""
    return max(0, min(room - 2 * _RECORD_COST, RECORD_LIMIT - _RECORD_COST) // _PAGE_COST)


class Writer:
    """Makes the records of one stream, in the order in which they are sent."""

    def __init__(self) -> None:
        self._seed = 0

    def client(self, facts: ClientFacts) -> bytes:
        return self._record(Kind.CLIENT, msgpack.packb(facts))

    def pool(self, facts: PoolFacts) -> bytes:
        return self._record(Kind.POOL, msgpack.packb(facts))

    def pages(self, pool: int, handles: np.ndarray, content: np.ndarray) -> bytes:
        return self._record(Kind.PAGES, _GROUP.pack(pool, len(handles)), handles.tobytes(), content.tobytes())

    def gone(self, pool: int, handles: np.ndarray) -> bytes:
        return self._record(Kind.GONE, _GROUP.pack(pool, len(handles)), handles.tobytes())

    def end(self, pools: tuple[PoolFacts, ...]) -> bytes:
        return self._record(Kind.END, msgpack.packb(pools))

    def _record(self, kind: Kind, *parts: bytes) -> bytes:
        record = b"".join((_HEAD.pack(kind, sum(map(len, parts))), *parts))
        self._seed = xxhash.xxh64_intdigest(record, self._seed)
        return record + _SUM.pack(self._seed)


class Reader:
    """Takes a stream in pieces of any size and gives its records."""

    def __init__(self) -> None:
        self.offset = 0                                      # of the first byte that is no record's yet
        self.ended = False
        self._seed = 0
        self._bytes = b""

    def feed(self, data: bytes) -> Iterator[Record]:
        """Take more bytes; yield the records that are complete now.  BadStream ends it for good."""
        self._bytes += data
        at = self._header()
        try:
            while (end := self._end_of_next(at)) is not None:
                yield self._next(at, end)
                at = end
        finally:
            self._bytes = self._bytes[at:]

    def _header(self) -> int:
        """Return where in what is here the records begin."""
        if self.offset:
            return 0
        if not HEADER.startswith(self._bytes[:len(HEADER)]):
            raise BadStream(0, f"no stream of this release begins with {self._bytes[:len(MAGIC)]!r}")
        if len(self._bytes) < len(HEADER):
            return 0
        self.offset = len(HEADER)
        return len(HEADER)

    def _end_of_next(self, at: int) -> int | None:
        """Return where the next record ends, or None while it is not all here."""
        if self.ended and len(self._bytes) > at:
            raise BadStream(self.offset, "more follows after its end")
        if not self.offset or len(self._bytes) < at + _HEAD.size:
            return None
        kind, length = _HEAD.unpack_from(self._bytes, at)
        if kind not in set(Kind) or length > RECORD_LIMIT:
            raise BadStream(self.offset, f"no record is of kind {kind} and {length} bytes")
        end = at + _HEAD.size + int(length) + _SUM.size
        return end if len(self._bytes) >= end else None

    def _next(self, at: int, end: int) -> Record:
        record, (given,) = self._bytes[at:end - _SUM.size], _SUM.unpack_from(self._bytes, end - _SUM.size)
        self._seed = xxhash.xxh64_intdigest(record, self._seed)
        if given != self._seed:
            raise BadStream(self.offset, "its checksum is another record's")
        kind = Kind(_HEAD.unpack_from(record)[0])
        try:
            value = _DECODERS[kind](record[_HEAD.size:])
        except Exception as error:  # hostile bytes end in one exception, whatever is made of them
            raise BadStream(self.offset, f"a record of kind {kind.name} says what none may ({error})") from error
        found = Record(kind, self.offset, value)
        self.offset += end - at
        self.ended = kind == Kind.END
        return found

    def finish(self) -> None:
        """Say that nothing more comes."""
        if not self.ended:
            raise BadStream(self.offset, "it is cut short")


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} is not a number from 0 to {most}")
    return value


def _client(body: bytes) -> ClientFacts:
    name, weight, cap, form, frozen, max_pages, token = msgpack.unpackb(body)
    if type(name) is not str or not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
        raise ValueError("no guest's name")
    if type(token) is not str or len(token) != TOKEN_DIGITS or set(token) - set("0123456789abcdef"):
        raise ValueError("no token")
    if type(frozen) is not bool:
        raise ValueError("neither frozen nor not")
    return ClientFacts(name, _number(weight, U32), _number(cap, U64), _number(form, max(Form)), frozen,
                       _number(max_pages, MAX_GUEST_PAGES), token)


def _pool(body: bytes) -> PoolFacts:
    return _pool_of(msgpack.unpackb(body))


def _pool_of(fields: Any) -> PoolFacts:
    number, flags, (first, second), pages = fields
    return PoolFacts(_number(number, MAX_POOLS - 1), _number(flags, U32), (_number(first, U64), _number(second, U64)),
                     _number(pages, U64))


def _pages(body: bytes) -> Pages:
    return _group(body, PAGE_SIZE)


def _gone(body: bytes) -> Pages:
    return _group(body, 0)


def _group(body: bytes, page_size: int) -> Pages:
    pool, count = _GROUP.unpack_from(body)
    if not count or len(body) != _GROUP.size + count * (HANDLE.itemsize + page_size):
        raise ValueError(f"{count} handles in {len(body)} bytes")
    handles = np.frombuffer(body, HANDLE, count, _GROUP.size)
    if len(set(handles.view(f"V{HANDLE.itemsize}").tolist())) < count:
        raise ValueError("a handle stands there twice")
    content = np.frombuffer(body, np.uint8, count * page_size, _GROUP.size + handles.nbytes)
    return Pages(_number(pool, MAX_POOLS - 1), np.ascontiguousarray(handles["oid"]),
                 handles["index"].astype(np.uint64), content.reshape(count, page_size))


def _end(body: bytes) -> tuple[PoolFacts, ...]:
    return tuple(_pool_of(fields) for fields in msgpack.unpackb(body))


_DECODERS = {Kind.CLIENT: _client, Kind.POOL: _pool, Kind.PAGES: _pages, Kind.GONE: _gone, Kind.END: _end}
