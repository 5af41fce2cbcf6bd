"""Formats of block traces: what a line or a record must look like, and which pages it refers to.

Text formats are one regular expression each, and binary ones a numpy dtype and a predicate; `decode` of either is
vectorised over a block of lines or records.  A line that does not match, and a record that fails the predicate, is
damage: it is named, never skipped.

    arc             .lis: start page, count, ignored, request number (the traces of the ARC paper)
    vscsi           VMware's VSCSI traces, version 1, records of 32 bytes
    csv             op,page with op r or w
    pages           one page number a line; lines `*` are markers and are passed over (the traces of the LIRS paper)
    u32             little-endian words: bit 31 is set for a write, the page is in the rest
    spc             ASU,LBA,size,opcode,timestamp (Storage Performance Council; LBA in 512 bytes)
    msr             Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime (MSR Cambridge; bytes)
    libcachesim     CSV with a header that names the columns: lbn (512 bytes) and size, or an object number; op if any
    oraclegeneral   libCacheSim's records of 24 bytes: time, object, size, next access; all reads

A request that covers several pages is that many references, in order.  Where one trace has several disks (ASU,
DiskNumber), the disk is part of the page's number.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SECTORS_A_PAGE = 8
MAX_REQUEST_PAGES = 1 << 16     # 256 MiB: a request beyond that is damage
PAGE_BITS = 44                  # a disk of 64 PiB: a page number beyond that is damage
DISK_SHIFT = 48

Columns = list[np.ndarray]
Requests = tuple[np.ndarray, np.ndarray, np.ndarray]    # first page (int64), pages, is a write


@dataclass(frozen=True, slots=True)
class Lines:
    """A text format.  `line` has groups; a line that only matches with all of them empty is passed over."""

    line: re.Pattern[bytes]
    decode: Callable[[Columns], Requests]       # one array of bytes a group
    shape: str                                  # what a person is told that a line looks like
    header: re.Pattern[bytes] | None = None     # of the first line, which is then no reference


@dataclass(frozen=True, slots=True)
class Records:
    """A binary format."""

    dtype: np.dtype
    decode: Callable[[np.ndarray], Requests]
    whole: Callable[[np.ndarray], np.ndarray]   # which records can be true
    shape: str


def line_of(pattern: bytes) -> re.Pattern[bytes]:
    """Compile the pattern of one line; blank lines are passed over everywhere."""
    return re.compile(rb"^(?:" + pattern + rb"|)[ \t]*\r?$", re.MULTILINE)


N = rb"[ \t]*(\d{1,18})[ \t]*"                  # 18 digits fit 64 bits
SMALL = rb"[ \t]*(\d{1,4})[ \t]*"              # the number of a disk
ANY = rb"[^,\n]*"


def numbers(column: np.ndarray) -> np.ndarray:
    return column.astype(np.int64)


def is_write(column: np.ndarray, words: tuple[bytes, ...]) -> np.ndarray:
    """Tell which entries are one of `words`, whatever their case."""
    return np.isin(np.char.lower(column), np.array(words))


def single(pages: np.ndarray, writes: np.ndarray | None = None) -> Requests:
    """Return requests of one page each."""
    return pages, np.ones(len(pages), np.int64), np.zeros(len(pages), bool) if writes is None else writes


def in_sectors(lba: np.ndarray, sectors: np.ndarray, writes: np.ndarray) -> Requests:
    """Return the pages that [lba, lba + sectors) covers; a request of no sectors covers none."""
    first = lba // SECTORS_A_PAGE
    last = (lba + sectors - 1) // SECTORS_A_PAGE
    return first, np.where(sectors > 0, last - first + 1, 0), writes


def _arc(columns: Columns) -> Requests:
    return numbers(columns[0]), numbers(columns[1]), np.zeros(len(columns[0]), bool)


def _csv(columns: Columns) -> Requests:
    return single(numbers(columns[1]), is_write(columns[0], (b"w",)))


def _spc(columns: Columns) -> Requests:
    asu, lba, size = (numbers(column) for column in columns[:3])
    first, count, writes = in_sectors(lba, -(-size // 512), is_write(columns[3], (b"w",)))
    return first | asu << DISK_SHIFT, count, writes


def _msr(columns: Columns) -> Requests:
    disk, offset, size = numbers(columns[0]), numbers(columns[2]), numbers(columns[3])
    first, last = offset // 4096, (offset + size - 1) // 4096
    return first | disk << DISK_SHIFT, np.where(size > 0, last - first + 1, 0), is_write(columns[1], (b"write",))


def _vscsi(records: np.ndarray) -> Requests:
    lba, sectors = records["lba"].astype(np.int64), records["length"].astype(np.int64) // 512
    return in_sectors(lba, sectors, np.isin(records["command"], VSCSI_WRITES))


def _vscsi_whole(records: np.ndarray) -> np.ndarray:
    known = np.isin(records["command"], VSCSI_READS + VSCSI_WRITES)
    return known & (records["version"] >> 8 == 1) & (records["length"] % 512 == 0) & (records["lba"] < 1 << 47)


def _u32(records: np.ndarray) -> Requests:
    reference = records["reference"]
    return single((reference & 0x7FFFFFFF).astype(np.int64), reference >> 31 == 1)


def _all_whole(records: np.ndarray) -> np.ndarray:
    return np.ones(len(records), bool)


def _oracle(records: np.ndarray) -> Requests:
    return single(records["object"].astype(np.int64) & (1 << PAGE_BITS) - 1)


def _oracle_whole(records: np.ndarray) -> np.ndarray:
    """An object number may be a hash of 64 bits; it is a page's number only below 2**44."""
    return (records["object"] < 1 << PAGE_BITS) & (records["next"] >= -2)


VSCSI_READS = (0x28, 0x08, 0x88, 0xA8)
VSCSI_WRITES = (0x2A, 0x0A, 0x8A, 0xAA)
VSCSI = np.dtype([("serial", "<u4"), ("length", "<u4"), ("segments", "<u4"), ("command", "<u2"), ("version", "<u2"),
                  ("lba", "<u8"), ("time", "<u8")])
ORACLE = np.dtype([("time", "<u4"), ("object", "<u8"), ("size", "<u4"), ("next", "<i8")])

FORMATS: dict[str, Lines | Records] = {
    "arc": Lines(line_of(rb"[ \t]*(\d{1,18})[ \t]+(\d{1,18})[ \t]+\d+[ \t]+\d+"), _arc,
                 "four numbers: start page, count, ignored, request number"),
    "vscsi": Records(VSCSI, _vscsi, _vscsi_whole, "a VSCSI record of version 1: 32 bytes, a read or a write"),
    "csv": Lines(line_of(rb"[ \t]*([rwRW])[ \t]*," + N), _csv, "op,page with op r or w",
                 re.compile(rb"op,page\s*")),
    "pages": Lines(line_of(N + rb"|[ \t]*\*"), lambda columns: single(numbers(columns[0])),
                   "a page number, or * alone"),
    "u32": Records(np.dtype([("reference", "<u4")]), _u32, _all_whole, "a word of 4 bytes"),
    "spc": Lines(line_of(SMALL + b"," + N + b"," + N + rb",[ \t]*([rwRW])[ \t]*,[ \t]*[\d.]+(?:,[^\n]*)?"), _spc,
                 "ASU,LBA,size,opcode,timestamp with opcode r or w"),
    "msr": Lines(line_of(rb"\d+,[^,\n]+," + SMALL + rb",[ \t]*([Rr]ead|[Ww]rite)[ \t]*," + N + b"," + N
                         + rb",[ \t]*\d+"), _msr,
                 "Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime with type Read or Write",
                 re.compile(rb"Timestamp,Hostname[^\n]*")),
    "oraclegeneral": Records(ORACLE, _oracle, _oracle_whole, "a record of 24 bytes with an object below 2**44"),
}
