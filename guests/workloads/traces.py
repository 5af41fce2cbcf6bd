"""Read a block trace: open, guess the format, decode, and number its pages densely.

Rule 1: whatever is in the file, `read_trace` returns a Trace or raises UsageProblem with one line that names the file
        and the line or the byte.  Damage behind the last reference that was asked for is nobody's business.
Rule 2: the file is read in blocks, so that the head of a large trace costs its head only.
Rule 3: `pages` are dense, 0 <= page < distinct, in the order of the trace's own numbers: neighbours stay neighbours.
"""

import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from guests.workloads.columns import has_header, libcachesim
from guests.workloads.formats import DISK_SHIFT, FORMATS, MAX_REQUEST_PAGES, PAGE_BITS, Lines, Records, Requests
from shm.errors import UsageProblem

References = tuple[np.ndarray, np.ndarray]     # page (int64), is a write

BLOCK = 1 << 20                  # bytes
FORMAT_NAMES = (*FORMATS, "libcachesim")
SUFFIXES = {".lis": "arc", ".vscsi": "vscsi", ".txt": "pages", ".u32": "u32", ".spc": "spc"}
UNPACKED = {".xz": lzma.open, ".gz": gzip.open}
NOT_CREDIBLE = f": no page number, or more than {MAX_REQUEST_PAGES} pages at once"
OTHER_PACKERS = {".zst": "zstd -d", ".bz2": "bunzip2", ".zip": "unzip", ".7z": "7z x"}


class Trace(NamedTuple):
    """References in order."""

    pages: np.ndarray           # (n,) uint32, dense
    is_write: np.ndarray        # (n,) bool
    distinct: int


class Damage(NamedTuple):
    """Which line of a block is damaged, counted from 0, and why, where the line's shape does not say it."""

    at: int
    why: str = ""


def read_trace(path: str | Path, form: str | None = None, start: int = 0, limit: int | None = None) -> Trace:
    """Return up to `limit` references from reference `start` on."""
    path = Path(path)
    pieces: list[References] = []
    needed, have = None if limit is None else start + limit, 0
    try:
        with _opened(path) as stream:
            for piece in _pieces(path, form, stream):
                pieces.append(piece)
                have += len(piece[0])
                if needed is not None and have >= needed:
                    break
    except (lzma.LZMAError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageProblem(f"trace {path}: the compressed file is damaged behind reference {have}: {error}") from error
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise UsageProblem(f"trace {path}: {said}; give the path of a trace") from error
    if have <= start:
        raise UsageProblem(f"trace {path}: it has {have} references, none from {start} on; lower the option start")
    pages, writes = (np.concatenate(column)[start:needed] for column in zip(*pieces, strict=True))
    names, dense = np.unique(pages, return_inverse=True)
    return Trace(dense.astype(np.uint32), writes, len(names))


def _opened(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix in OTHER_PACKERS:
        raise UsageProblem(f"trace {path}: {suffix} is not unpacked here; use {OTHER_PACKERS[suffix]} first (.xz and "
                           ".gz are read as they are)")
    opener = UNPACKED.get(suffix, open)
    stream: IO[bytes] = opener(path, "rb")      # type: ignore[operator]
    return stream


# -- the format

def guess_format(path: Path, head: bytes) -> str | None:
    """Return the format's name from the file's name, and of a .csv from its first line; None when they do not say."""
    plain = path.with_suffix("") if path.suffix.lower() in UNPACKED else path
    if "oraclegeneral" in plain.name.lower():
        return "oraclegeneral"
    if plain.suffix.lower() != ".csv":
        return SUFFIXES.get(plain.suffix.lower())
    first = head.partition(b"\n")[0]
    for name in ("csv", "msr"):
        known = FORMATS[name]
        assert isinstance(known, Lines)
        if (known.header and known.header.fullmatch(first)) or (first.strip() and known.line.fullmatch(first)):
            return name
    return "libcachesim" if has_header(first) else None


def _format(path: Path, form: str | None, head: bytes) -> Lines | Records:
    name = form or guess_format(path, head)
    allowed = f"give the option format: {', '.join(FORMAT_NAMES)}"
    if name is None:
        raise UsageProblem(f"trace {path}: its name does not say which format it is; {allowed}")
    if name not in FORMAT_NAMES:
        raise UsageProblem(f"trace {path}: there is no format {name!r}; {allowed}")
    known = FORMATS.get(name) or libcachesim(head.partition(b"\n")[0])
    if known is None:
        raise UsageProblem(f"trace {path}, line 1: no column is called lbn, lba, obj_id or the like; name the columns "
                           "in the first line")
    return known


# -- blocks of it

def _pieces(path: Path, form: str | None, stream: IO[bytes]) -> Iterator[References]:
    """Return (pages, is_write) of block after block."""
    head = stream.read(BLOCK)
    if not head:
        raise UsageProblem(f"trace {path}: it is empty")
    known = _format(path, form, head)
    if isinstance(known, Lines):
        yield from _from_lines(path, known, head, stream)
    else:
        yield from _from_records(path, known, head, stream)


def _from_lines(path: Path, known: Lines, block: bytes, stream: IO[bytes]) -> Iterator[References]:
    line = 1
    while block:
        block += b"" if block.endswith(b"\n") else stream.readline(BLOCK)
        whole = block[:-1] if block.endswith(b"\n") else block
        if line == 1 and known.header and known.header.fullmatch(first := whole.partition(b"\n")[0].strip()):
            whole = whole.replace(first, b"", 1)
        requests, damage = decode_lines(known, whole)
        yield references(requests)
        if damage is not None:
            text = whole.split(b"\n")[damage.at].decode(errors="replace")
            raise UsageProblem(f"trace {path}, line {line + damage.at}: {text[:60]!r} is not {known.shape}{damage.why}")
        line += whole.count(b"\n") + 1
        block = stream.read(BLOCK)


def _from_records(path: Path, known: Records, block: bytes, stream: IO[bytes]) -> Iterator[References]:
    size, offset = known.dtype.itemsize, 0
    while block:
        block += stream.read(-len(block) % size)
        records = np.frombuffer(block, known.dtype, count=len(block) // size)
        bad = first_damaged(known, records)
        yield references(known.decode(records[:bad]))
        if bad < len(records) or len(block) % size:
            why = "" if bad < len(records) else ": the file ends in the middle of it"
            raise UsageProblem(f"trace {path}, byte {offset + bad * size}: what is there is not {known.shape}{why}")
        offset += len(block)
        block = stream.read(BLOCK)


def decode_lines(known: Lines, block: bytes) -> tuple[Requests, Damage | None]:
    """Return the requests of a block, up to the first damaged line."""
    damage, matches = None, known.line.findall(block)
    if len(matches) != block.count(b"\n") + 1:
        lines = block.split(b"\n")
        damage = Damage(next(at for at, line in enumerate(lines) if not known.line.fullmatch(line)))
        matches = known.line.findall(b"\n".join(lines[:damage.at])) if damage.at else []
    table = np.array(matches, dtype=bytes).reshape(len(matches), known.line.groups)
    holding = np.flatnonzero(table[:, 0] != b"")             # the others are passed over: all their groups are empty
    requests = known.decode(list(table[holding].T))
    bad = np.flatnonzero(~_credible(requests))
    if not len(bad):
        return requests, damage
    first, count, writes = (column[:bad[0]] for column in requests)
    return (first, count, writes), Damage(int(holding[bad[0]]), NOT_CREDIBLE)


def first_damaged(known: Records, records: np.ndarray) -> int:
    """Return the number of the first record that cannot be true; how many there are when all can."""
    bad = ~known.whole(records)
    bad |= ~_credible(known.decode(records))
    return int(bad.argmax()) if bad.any() else len(records)


def _credible(requests: Requests) -> np.ndarray:
    """Tell which requests can be true: else one damaged digit would be terabytes."""
    first, count, _ = requests
    return (first >> DISK_SHIFT < 1 << 14) & (first & (1 << DISK_SHIFT) - 1 < 1 << PAGE_BITS) & (
        count <= MAX_REQUEST_PAGES) & (count >= 0)


def references(requests: Requests) -> References:
    """Return (page, is_write) a reference: a request of n pages is n references, in order."""
    first, count, writes = requests
    before = np.cumsum(count) - count
    pages = np.repeat(first - before, count) + np.arange(int(count.sum()))
    return pages, np.repeat(writes, count)
