"""The ABI: every number that crosses the border between a guest and the hypervisor, once.

    request   msgpack [seq, op, *arguments]      guest -> hypervisor, one outstanding at most
    reply     msgpack [seq, status, value]       repeats the request's seq

Page content never travels in a message: it crosses in the guest's transfer buffer (`shm.transfer`), which the guest
may touch until the request is sent and the hypervisor until the reply is.

Numbers are for ever.  A withdrawn call leaves its number behind, unused.  Whatever bytes arrive, `decode_request`
returns a checked call, or raises UnknownCall for a number that is no call's, or BadHypercall, and nothing else.
"""

from enum import IntEnum, IntFlag
from typing import NamedTuple

import msgpack
import numpy as np

from shm.errors import BadHypercall, UnknownCall

# 1: no shared pools, no sub-page calls, entries of 48 bytes.  2: no hardware faults.  3: no targets
ABI_VERSION = 4
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

    CONTROL = 0              # sub-operation, client, argument, argument: privileged
    NEW_POOL = 1             # flags, uuid x 2
    DESTROY_POOL = 2         # pool
    NEW_PAGE = 3             # pool, oid x 3, index: a put of zeros
    PUT_PAGE = 4             # pool, oid x 3, index; the page in slot 0
    GET_PAGE = 5             # pool, oid x 3, index; the page to slot 0
    FLUSH_PAGE = 6           # pool, oid x 3, index
    FLUSH_OBJECT = 7         # pool, oid x 3
    READ = 8                 # pool, oid x 3, index, offset in the stored page, offset in slot 0, length
    WRITE = 9                # the same
    AUTH = 101               # client, uuid x 2, allow: privileged
    RESTORE_NEW = 102        # client, pool, flags, uuid x 2: privileged
    # 10 xchg: Xen's, never carried out; like every unknown number it is answered with 0 (T28)
    PING = 200               # nothing; the reply's value is 0
    FAULT = 201              # count; guest frame numbers in the transfer buffer
    MULTICALL = 202          # count; entries in the transfer buffer
    BALLOON = 203            # count; numbers of unused guest frames in the transfer buffer: they are taken back now
    ESSA = 204               # order, count; frame numbers in the transfer buffer, and there the old states come back
    RELEASE = 205            # count; frame numbers in the transfer buffer: CMM1's diag 10
    RESET = 206              # nothing: the guest's processor was reset, all its pages are stable
    PIN = 207                # count; frame numbers in the transfer buffer: stable and resident until UNPIN
    UNPIN = 208              # the same


# How many integers each call carries, and the largest each may be.
ARGUMENTS: dict[Op, tuple[int, ...]] = {
    Op.CONTROL: (U32, U32, U32, U32),
    Op.NEW_POOL: (U32, U64, U64),
    Op.DESTROY_POOL: (U32,),
    Op.NEW_PAGE: (U32, U64, U64, U64, U32),
    Op.PUT_PAGE: (U32, U64, U64, U64, U32),
    Op.GET_PAGE: (U32, U64, U64, U64, U32),
    Op.FLUSH_PAGE: (U32, U64, U64, U64, U32),
    Op.FLUSH_OBJECT: (U32, U64, U64, U64),
    Op.READ: (U32, U64, U64, U64, U32, U32, U32, U32),
    Op.WRITE: (U32, U64, U64, U64, U32, U32, U32, U32),
    Op.AUTH: (U32, U64, U64, U32),
    Op.RESTORE_NEW: (U32, U32, U32, U64, U64),
    Op.PING: (),
    Op.FAULT: (MULTICALL_LIMIT,),
    Op.MULTICALL: (MULTICALL_LIMIT,),
    Op.BALLOON: (MULTICALL_LIMIT,),
    Op.ESSA: (U32, MULTICALL_LIMIT),
    Op.RELEASE: (MULTICALL_LIMIT,),
    Op.RESET: (),
    Op.PIN: (MULTICALL_LIMIT,),
    Op.UNPIN: (MULTICALL_LIMIT,),
}


class Status(IntEnum):
    """Answers.  1 and 0 are Xen's yes and no (a hit and a miss); the negative ones carry Xen's errno values."""

    OK = 1
    NO = 0                   # get: a miss.  destroy: no such pool
    EPERM = -1
    EIO = -5                 # a page that was written back cannot be read from the hypervisor's disk now
    ENOMEM = -12             # no room and nothing evictable: a put is refused
    EACCES = -13             # a shared pool that this guest was not allowed to join (PoolFlag.MUST_SHARE)
    EFAULT = -14             # guest frame numbers that are not its own, or not as the call needs them
    EBUSY = -16              # the guest is being migrated: no pool is destroyed meanwhile (T88)
    ENODEV = -19             # no such pool, or tmem is off
    EINVAL = -22             # the call itself is malformed
    ENOSPC = -28             # a duplicate put failed, and the old copy is gone (T34)
    EFROZEN = -1000          # a new put while frozen (T39); a flush then, although it was done (T42)
    EEMPTY = -1001           # get: the pool holds no page at all (T18)
    EMOVED = -1002           # this guest's tmem lives in another cluster now: ask at the door where


class Refusal(IntEnum):
    """Why a put was refused: the reply's value, or the entry's `reason`.  The list is closed."""

    NONE = 0                 # it was not
    FROZEN = 1               # the operator has frozen the pool's owner, or everybody
    MIGRATING = 2            # the pool's owner is being saved while it runs: replacing puts flush (T87)
    BAD_FRAME = 3            # the source is no page of the transfer buffer (T37)
    MAX_MEM = 4              # persistent: RAM and persistent pages would exceed the guest's max_mem (T67)
    RESERVED = 5             # persistent: all guests' together would take the frames that guests' memory must find
    CAP = 6                  # the operator's cap on this guest's tmem pages
    NO_FRAME = 7             # no frame is free, and nothing can be evicted for it
    TARGET = 8               # persistent: the guest holds what the hypervisor's policy has dealt it


class PoolFlag(IntFlag):
    PERSIST = 1
    SHARED = 2
    PRECOMPRESSED = 4
    MUST_SHARE = 8           # ours, in the bit that Xen left unassigned: EACCES, not a private pool, when not allowed


PAGE_BITS_SHIFT, PAGE_BITS_MASK = 4, 0xF     # log2(page size) - 12: 0
VERSION_SHIFT, VERSION_MASK = 24, 0xFF
RESERVED_FLAGS = 0x00FFFF00
TMEM_VERSION = 1

# One operation of a multicall, 64 bytes.  `slot` is the page's place in the transfer buffer; `status`, and `reason` (of
# a refused put), are the hypervisor's.  READ and WRITE move `length` bytes between `offset` of the stored page and
# `slot_offset` of the slot.
ENTRY = np.dtype([
    ("op", "<u4"), ("pool", "<u4"), ("oid", "<u8", (3,)), ("index", "<u4"), ("slot", "<u4"),
    ("status", "<i4"), ("reason", "<u4"), ("offset", "<u4"), ("slot_offset", "<u4"), ("length", "<u4"), ("pad", "<u4"),
])


class Request(NamedTuple):
    seq: int
    op: Op
    arguments: tuple[int, ...]


class Reply(NamedTuple):
    seq: int
    status: int
    value: int


_CALLS: dict[int, tuple[Op, tuple[int, ...]]] = {int(op): (op, limits) for op, limits in ARGUMENTS.items()}
_NO_CALL: tuple[None, tuple[int, ...]] = None, ()


def encode_request(seq: int, op: Op, *arguments: int) -> bytes:
    return msgpack.packb((seq, op, *arguments))


def encode_reply(seq: int, status: int, value: int = 0) -> bytes:
    return msgpack.packb((seq, status, value))


def decode_request(message: bytes) -> Request:
    """Return the call that `message` holds; raise BadHypercall whatever else the bytes are."""
    try:
        seq, number, *arguments = msgpack.unpackb(message)
        op, limits = _CALLS.get(number, _NO_CALL)
    except Exception as error:  # hostile bytes end in one exception, whatever msgpack makes of them
        raise BadHypercall(f"not a hypercall: {message[:16]!r}") from error
    if type(seq) is not int or not 0 <= seq <= U32 or type(number) is not int:
        raise BadHypercall(f"bad header: {message[:16]!r}")
    if op is None:
        raise UnknownCall(f"no call has the number {number}")
    if len(arguments) != len(limits):
        raise BadHypercall(f"{op.name} takes {len(limits)} arguments, got {len(arguments)}")
    for value, limit in zip(arguments, limits):  # noqa: B905  # as many, and `strict` costs
        if type(value) is not int or not 0 <= value <= limit:
            raise BadHypercall(f"{op.name}: {value!r} is not a number from 0 to {limit}")
    return Request(seq, op, tuple(arguments))


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
