"""What the hypervisor and a guest's pager say to each other, and what a guest says to its pager.

    RESTORE    hypervisor -> pager    runs of discarded pages, address and count: fill them (frames are reserved)
    FAILED     pager -> hypervisor    an address that it cannot fill, and why

    DISK       guest -> pager         a disk's descriptor, and its number; where requests are to sleep, two more: ns for
                                      a request, and for each block of it
    FUNCTION   guest -> pager         a restore function (pickled, in a descriptor) for pages `first` to `first + pages`
                                      ... without a descriptor: the functions for these pages go
    MOVED      guest -> pager         the guest's memory lies at another address now
    DONE       pager -> guest         the answer to these three; with a text when it was refused

One message of a SOCK_SEQPACKET socket each: fixed numbers, no names, since neither side trusts the other to parse much.
Addresses are the guest's absolute page addresses (R26), so their low twelve bits are zero; bit 0 of an address of
RESTORE says that the pages are clean, and are to be filled write-protected; bit 1 that nobody is known to have touched
them: they are asked for along with others, and failing is no harm.  All addresses of a message have the same bits, and
together it is of PAGES_AT_ONCE pages at most.  That a page was filled is not said: the hypervisor asks the kernel,
which does not lie.

No numpy here: the pager imports this.
"""

import struct
from typing import NamedTuple

RESTORE, FAILED = 1, 3
DISK, FUNCTION, MOVED, DONE = 16, 17, 18, 19
CLEAN, ALONG = 1, 2                          # bits of an address
PAGES_AT_ONCE = 64
MOST_WORDS = 2 * PAGES_AT_ONCE
MESSAGE_LIMIT = 8 + 8 * MOST_WORDS
TEXT_LIMIT = 400                             # bytes
PAGE = 4096

# Where the bytes of a discarded page can be had again: one int64 a page, written by the guest, read by its pager.
NOBODY, ZEROS = 0, 1
FIRST_BLOCK, DISK_SHIFT = 2, 40              # (disk << 40 | block) + 2 ...
TAIL_SHIFT = 51                              # ... and above: how many bytes of it count, zeros follow; 0: all of them

_HEADER, _ONE = struct.Struct("<II"), struct.Struct("<IIQQ")


class Message(NamedTuple):
    kind: int
    words: tuple[int, ...] = ()
    text: str = ""


class Malformed(ValueError):
    """Bytes that are no message; the line says what is wrong with them."""


def encode(kind: int, words: "tuple[int, ...] | list[int]" = (), text: str = "") -> bytes:
    """Return the bytes of a message; a text is cut to what fits."""
    return _HEADER.pack(kind, len(words)) + struct.pack(f"<{len(words)}Q", *words) + text.encode()[:TEXT_LIMIT]


def restore_one(word: int) -> bytes:
    """Return the bytes of RESTORE for one page: the usual message."""
    return _ONE.pack(RESTORE, 2, word, 1)


def decode(data: bytes, kinds: tuple[int, ...]) -> Message:
    """Return the message that `data` holds, of one of `kinds`; Malformed whatever else the bytes are."""
    if len(data) < _HEADER.size:
        raise Malformed(f"a message of {len(data)} bytes")
    kind, count = _HEADER.unpack_from(data)
    if kind not in kinds:
        raise Malformed(f"a message of kind {kind}")
    if count > MOST_WORDS or len(data) < _HEADER.size + 8 * count:
        raise Malformed(f"a message that says {count} words and has {len(data) - _HEADER.size} bytes")
    words = struct.unpack_from(f"<{count}Q", data, _HEADER.size)
    rest = data[_HEADER.size + 8 * count:]
    if len(rest) > TEXT_LIMIT:
        raise Malformed(f"a text of {len(rest)} bytes")
    return Message(kind, words, rest.decode(errors="replace"))
