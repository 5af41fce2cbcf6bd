"""The ABI: every number that crosses the border between a guest and the hypervisor, once.

    request   msgpack [seq, op, *arguments]      guest -> hypervisor, one outstanding at most
    reply     msgpack [seq, status, value]       repeats the request's seq

Page content never travels in a message: it crosses in the guest's transfer buffer (`shm.transfer`), which the guest
may touch until the request is sent and the hypervisor until the reply is.

Numbers are for ever.  A withdrawn call leaves its number behind, unused.  Whatever bytes arrive, `decode_request`
returns a checked call or raises BadHypercall and nothing else.
"""

from enum import IntEnum, IntFlag
from typing import NamedTuple

import msgpack
import numpy as np

from shm.errors import BadHypercall

ABI_VERSION = 1
PAGE_SIZE = 4096
MESSAGE_BYTES = 512          # the largest message of a queue
QUEUE_DEPTH = 4              # messages that a queue holds
MULTICALL_LIMIT = 256        # pages, entries and fault addresses that the transfer buffer holds
MAX_GUESTS = 128             # more would pass the queue limits of one user (RLIMIT_MSGQUEUE 819,200)
MAX_GUEST_PAGES = 1 << 28    # 1 TiB of RAM a guest
MAX_POOLS = 16               # pools a guest (Xen 4.2)
U32 = (1 << 32) - 1
U64 = (1 << 64) - 1


class Op(IntEnum):
    """Hypercalls.  The tmem numbers are Xen's; ours begin at 200."""

    NEW_POOL = 1             # flags
    DESTROY_POOL = 2         # pool
    PUT_PAGE = 4             # pool, oid x 3, index; the page in slot 0
    GET_PAGE = 5             # pool, oid x 3, index; the page to slot 0
    FLUSH_PAGE = 6           # pool, oid x 3, index
    FLUSH_OBJECT = 7         # pool, oid x 3
    # 0 control, 3 new page, 8 read, 9 write, 10 xchg, 101 auth, 102 restore: Xen's, kept free
    PING = 200               # nothing; the reply's value is 0
    FAULT = 201              # count; guest frame numbers in the transfer buffer
    MULTICALL = 202          # count; entries in the transfer buffer


# How many integers each call carries, and the largest each may be.
ARGUMENTS: dict[Op, tuple[int, ...]] = {
    Op.NEW_POOL: (U32,),
    Op.DESTROY_POOL: (U32,),
    Op.PUT_PAGE: (U32, U64, U64, U64, U32),
    Op.GET_PAGE: (U32, U64, U64, U64, U32),
    Op.FLUSH_PAGE: (U32, U64, U64, U64, U32),
    Op.FLUSH_OBJECT: (U32, U64, U64, U64),
    Op.PING: (),
    Op.FAULT: (MULTICALL_LIMIT,),
    Op.MULTICALL: (MULTICALL_LIMIT,),
}


class Status(IntEnum):
    """Answers.  1 and 0 are Xen's yes and no (a hit and a miss); the negative ones carry Xen's errno values."""

    OK = 1
    NO = 0                   # get: a miss.  destroy: no such pool
    EPERM = -1
    ENOMEM = -12             # no room and nothing evictable: a put is refused
    EFAULT = -14             # guest frame numbers that are not its own, or not as the call needs them
    ENODEV = -19             # no such pool, or tmem is off
    EINVAL = -22             # the call itself is malformed
    ENOSPC = -28             # a duplicate put failed, and the old copy is gone (T34)
    EEMPTY = -1001           # get: the pool holds no page at all (T18)


class PoolFlag(IntFlag):
    PERSIST = 1
    SHARED = 2
    PRECOMPRESSED = 4


PAGE_BITS_SHIFT, PAGE_BITS_MASK = 4, 0xF     # log2(page size) - 12: 0
VERSION_SHIFT, VERSION_MASK = 24, 0xFF
RESERVED_FLAGS = 0x00FFFF00
TMEM_VERSION = 1

# One operation of a multicall.  `slot` is the page's place in the transfer buffer, `status` is the hypervisor's.
ENTRY = np.dtype([
    ("op", "<u4"), ("pool", "<u4"), ("oid", "<u8", (3,)), ("index", "<u4"), ("slot", "<u4"),
    ("status", "<i4"), ("pad", "<u4"),
])


class Request(NamedTuple):
    seq: int
    op: Op
    arguments: tuple[int, ...]


class Reply(NamedTuple):
    seq: int
    status: int
    value: int


def encode_request(seq: int, op: Op, *arguments: int) -> bytes:
    return msgpack.packb((seq, int(op), *arguments))


def encode_reply(seq: int, status: int, value: int = 0) -> bytes:
    return msgpack.packb((seq, int(status), value))


def decode_request(message: bytes) -> Request:
    """Return the call that `message` holds; raise BadHypercall whatever else the bytes are."""
    try:
        seq, number, *arguments = msgpack.unpackb(message)
        limits = ARGUMENTS[number]
    except Exception as error:  # hostile bytes end in one exception, whatever msgpack makes of them
        raise BadHypercall(f"not a hypercall: {message[:16]!r}") from error
    if type(seq) is not int or not 0 <= seq <= U32 or type(number) is not int:
        raise BadHypercall(f"bad header: {message[:16]!r}")
    if len(arguments) != len(limits):
        raise BadHypercall(f"{Op(number).name} takes {len(limits)} arguments, got {len(arguments)}")
    for value, limit in zip(arguments, limits, strict=True):
        if type(value) is not int or not 0 <= value <= limit:
            raise BadHypercall(f"{Op(number).name}: {value!r} is not a number from 0 to {limit}")
    return Request(seq, Op(number), tuple(arguments))


def sequence_of(message: bytes) -> int:
    """Return the seq of a malformed request, so that its sender can be answered; 0 where there is none."""
    try:
        seq = msgpack.unpackb(message)[0]
    except Exception:
        return 0
    return seq if type(seq) is int and 0 <= seq <= U32 else 0


def decode_reply(message: bytes) -> Reply:
    try:
        seq, status, value = msgpack.unpackb(message)
        return Reply(int(seq), int(status), int(value))
    except Exception as error:
        raise BadHypercall(f"not a reply: {message[:16]!r}") from error
