"""libCacheSim's CSV: the header says which column is what, so the pattern of a line is made from it.

    page     lbn or lba, in sectors of 512 bytes, with `size` in bytes; or an object's number: one object is one page
    op       where there is one: read, get, r, 28, 88 and their like are reads; write, set, w, 2a, 8a are writes

Without a header the columns are time, object, size, as libCacheSim's own tools write them.
"""

import re

import numpy as np

from guests.workloads.formats import ANY, Columns, Lines, N, Requests, in_sectors, is_write, line_of, numbers, single

SECTORS = (b"lbn", b"lba")
OBJECTS = (b"obj", b"obj_id", b"object", b"object_id", b"id", b"key")
SIZES = (b"size", b"obj_size", b"object_size", b"length")
OPS = (b"op", b"opcode", b"operation", b"type", b"command")
WRITES = (b"w", b"write", b"set", b"put", b"a", b"2a", b"0a", b"8a", b"aa")
READS = (b"r", b"read", b"get", b"gets", b"8", b"28", b"08", b"88", b"a8")
OP = rb"[ \t]*(" + b"|".join(READS + WRITES) + rb")[ \t]*"
ANY_HEADER = re.compile(rb"[^\n]*")


def names_of(first_line: bytes) -> list[bytes]:
    return [name.strip().strip(b'"').lower() for name in first_line.split(b",")]


def has_header(first_line: bytes) -> bool:
    """Tell whether the line names a column that holds pages."""
    return any(name in SECTORS + OBJECTS for name in names_of(first_line))


def libcachesim(first_line: bytes) -> Lines | None:
    """Return the format of a trace whose first line this is; None when no column can be the page."""
    if has_header(first_line):
        return _of_columns(names_of(first_line), ANY_HEADER)
    if re.fullmatch(rb"\d+,\d+(,\d+[^\n]*)?\s*", first_line):
        return _of_columns([b"time", b"obj_id"] + [b"other"] * (first_line.count(b",") - 1), None)
    return None


def _of_columns(names: list[bytes], header: re.Pattern[bytes] | None) -> Lines:
    page = next(at for at, name in enumerate(names) if name in SECTORS + OBJECTS)
    size = next((at for at, name in enumerate(names) if name in SIZES), None) if names[page] in SECTORS else None
    op = next((at for at, name in enumerate(names) if name in OPS), None)
    wanted = sorted(at for at in (page, size, op) if at is not None)
    fields = [OP if at == op else N if at in wanted else ANY for at in range(len(names))]
    decoder = _Decoder(names[page] in SECTORS, *(None if at is None else wanted.index(at) for at in (page, size, op)))
    shape = ",".join(name.decode(errors="replace") for name in names)
    line = line_of(b"(?i:" + b",".join(fields) + b")")
    return Lines(line, decoder, f"{shape} with numbers for page and size", header)


class _Decoder:
    """Where the columns went: the place of each among the groups."""

    def __init__(self, sectors: bool, page: int | None, size: int | None, op: int | None) -> None:
        assert page is not None
        self._sectors, self._page, self._size, self._op = sectors, page, size, op

    def __call__(self, columns: Columns) -> Requests:
        pages = numbers(columns[self._page])
        writes = np.zeros(len(pages), bool) if self._op is None else is_write(columns[self._op], WRITES)
        if not self._sectors:
            return single(pages, writes)
        size = np.full(len(pages), 4096) if self._size is None else numbers(columns[self._size])
        return in_sectors(pages, -(-size // 512), writes)
