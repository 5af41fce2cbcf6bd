"""Trace files: every format by hand, damage named by file and place, blocks cut anywhere, the real traces' figures."""

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.workloads import traces
from guests.workloads.trace import Format
from guests.workloads.traces import read_trace
from shm.errors import UsageProblem

REAL = Path(__file__).parents[4] / "shared" / "traces"


def vscsi(length: int, command: int, lba: int, version: int = 0x0100) -> bytes:
    return struct.pack("<IIIHHQQ", 1, length, 1, command, version, lba, 99)


def u32(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def oracle(obj: int, following: int = -2) -> bytes:
    return struct.pack("<IQIq", 5, obj, 4096, following)


# name of the file, content, references as the trace's own page numbers (negative: a write; ~ keeps page 0 apart)
WHOLE = [
    ("a.lis", b"10 3 0 1\n7 1 0 2\n11 2 0 3\n", [10, 11, 12, 7, 11, 12]),
    ("blank-lines-and-crlf.lis", b"10 1 0 1\r\n\r\n7 1 0 2", [10, 7]),
    ("a.vscsi", vscsi(4096, 0x28, 80) + vscsi(4096, 0x2A, 84) + vscsi(512, 0x8A, 7) + vscsi(1024, 0x88, 23),
     [10, ~10, ~11, ~0, 2, 3]),
    ("nothing-asked-for.vscsi", vscsi(0, 0x28, 80) + vscsi(512, 0x28, 8), [1]),
    ("a.csv", b"op,page\nr,5\nw,6\nR,5\n", [5, ~6, 5]),
    ("no-header.csv", b"w,6\nr,6\n", [~6, 6]),
    ("a.txt", b"*\n3\n4\n*\n3\n", [3, 4, 3]),
    ("a.u32", u32(5, 0x80000005, 0), [5, ~5, 0]),
    ("a.spc", b"0,16,4096,r,0.1\n0,20,4096,W,0.2\n1,16,512,R,0.3,more,fields\n 0 , 7 ,1,w,1\n",
     [2, ~2, ~3, (1 << 48) + 2, ~0]),
    ("a.csv", b"128166372003061629,usr,0,Read,8192,4096,1331\n128166372003061630,usr,0,Write,12287,2,5\n"
              b"128166372003061631,usr,1,Read,0,1,5\n", [2, ~2, ~3, 1 << 48]),
    ("with-header.csv", b"Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime\n1,h,0,Write,0,8192,1\n",
     [~0, ~1]),
    ("libcachesim.csv", b"version,time,op,size,lbn\n1,33898,2a,512,80\n1,33899,28,8192,84\n", [~10, 10, 11, 12]),
    ("objects.csv", b"time,obj_id,obj_size\n1,7,100\n2,9,9999\n", [7, 9]),
    ("objects-with-op.csv", b"id,op\n7,SET\n9,get\n", [~7, 9]),
    ("x.oracleGeneral", oracle(9, 4) + oracle(3), [9, 3]),
    ("x.oracleGeneral.bin", oracle(1), [1]),
]
PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def expected(references: list[int]) -> tuple[list[int], list[bool], int]:
    """Return what read_trace must give: dense pages in the order of their numbers, writes, distinct."""
    numbers = [~reference if reference < 0 else reference for reference in references]
    dense = {page: at for at, page in enumerate(sorted(set(numbers)))}
    return [dense[page] for page in numbers], [reference < 0 for reference in references], len(dense)


def plain(trace: traces.Trace) -> tuple[list[int], list[bool], int]:
    return trace.pages.tolist(), trace.is_write.tolist(), trace.distinct


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(("name", "content", "references"), WHOLE)
def test_every_format(tmp_path: Path, name: str, content: bytes, references: list[int], packer: str) -> None:
    path = tmp_path / (name + packer)
    path.write_bytes(PACKERS[packer](content))
    assert plain(read_trace(path)) == expected(references)


@pytest.mark.parametrize("block", [1, 2, 7, 32, 33])
@pytest.mark.parametrize(("name", "content", "references"), WHOLE)
def test_blocks_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes,
                                 references: list[int], block: int) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    form = traces.guess_format(path, content)
    monkeypatch.setattr(traces, "BLOCK", max(block, content.find(b"\n") + 1))
    assert plain(read_trace(path, form)) == expected(references)


def test_the_format_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(b"3 2 0 0\n")
    assert plain(read_trace(path, "arc")) == expected([3, 4])
    path.write_bytes(b"1,7,100\n2,8\n")
    with pytest.raises(UsageProblem, match="line 2: '2,8' is not time,obj_id,other"):
        read_trace(path, "libcachesim")


@pytest.mark.parametrize(("start", "limit"), [(0, None), (0, 1), (2, 2), (2, 3), (3, None), (5, 100)])
@pytest.mark.parametrize("block", [8, 1 << 20])
def test_start_and_limit_count_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int,
                                          limit: int | None, block: int) -> None:
    path = tmp_path / "a.lis"
    path.write_bytes(b"10 3 0 1\n7 1 0 2\n11 2 0 3\n")
    monkeypatch.setattr(traces, "BLOCK", block)
    end = None if limit is None else start + limit
    assert plain(read_trace(path, None, start, limit)) == expected([10, 11, 12, 7, 11, 12][start:end])


def test_damage_behind_the_limit_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1\n2\njunk\n")
    monkeypatch.setattr(traces, "BLOCK", 4)
    assert len(read_trace(path, None, 0, 2).pages) == 2
    with pytest.raises(UsageProblem):
        read_trace(path, None, 0, 3)


DAMAGED = [
    ("a.lis", b"1 1 0 0\n2 1 0\n", "line 2: '2 1 0' is not four numbers"),
    ("a.lis", b"1 1 0 0\n\n-2 1 0 0\n", "line 3: '-2 1 0 0' is not"),
    ("a.lis", b"1 1 0 0\n\n\n5 1 0 0\n1 70000 0 0\n", "line 5: '1 70000 0 0'"),
    ("a.lis", b"1 70000 0 0\n", "line 1: .* more than 65536 pages at once"),
    ("a.lis", b"1 1 0 0\n99999999999999999 1 0 0\n", "line 2: .*: no page number"),
    ("a.lis", b"1 1 0 0\n99999999999999999999 1 0 0\n", "line 2: "),
    ("a.csv", b"op,page\nr,1\nx,2\n", "line 3: 'x,2' is not op,page with op r or w"),
    ("a.csv", b"op,page\nr,1\nop,page\n", "line 3: 'op,page' is not"),
    ("a.txt", b"1\n2 3\n", "line 2: '2 3' is not a page number"),
    ("a.txt", b"\x00\x01\x02", "line 1: .* is not a page number"),
    ("a.spc", b"0,1,512,x,1\n", "line 1: .* is not ASU,LBA,size"),
    ("a.spc", b"0,1,512,r,1\n0,1,99999999999,r,1\n", "line 2: .* more than 65536 pages at once"),
    ("a.csv", b"1,h,0,Read,0,1,1\n1,h,0,Erase,0,1,1\n", "line 2: .* is not Timestamp"),
    ("libcachesim.csv", b"time,lbn,size\n1,8,512\n1,eight,512\n", "line 3: '1,eight,512' is not time,lbn,size"),
    ("a.vscsi", vscsi(512, 0x28, 1) + vscsi(512, 0x99, 1), "byte 32: what is there is not a VSCSI record"),
    ("a.vscsi", vscsi(512, 0x28, 1, version=0x0200), "byte 0: what is there"),
    ("a.vscsi", vscsi(512, 0x28, 1) * 3 + b"half", "byte 96: .*: the file ends in the middle of it"),
    ("a.vscsi", vscsi(513, 0x28, 1), "byte 0: "),
    ("a.vscsi", vscsi(1 << 31, 0x28, 1), "byte 0: "),
    ("a.u32", u32(1, 2) + b"\x01", "byte 8: what is there is not a word of 4 bytes: the file ends in the middle"),
    ("x.oracleGeneral", oracle(1) + oracle(1 << 50), "byte 24: what is there is not a record of 24 bytes"),
    ("x.oracleGeneral", oracle(1, -9), "byte 0: "),
    ("a.txt", b"", "it is empty"),
    ("a.txt", b"*\n*\n", "it has 0 references"),
    ("unknown.dat", b"1\n", "its name does not say which format it is; give the option format: arc, vscsi"),
    ("unknown.csv", b"a,b\n1,2\n", "its name does not say which format it is"),
    ("a.txt.gz", b"no gzip", "the compressed file is damaged behind reference 0"),
    ("a.txt.xz", b"no xz", "the compressed file is damaged behind reference 0"),
    ("a.txt.gz", gzip.compress(b"1\n2\n", mtime=0)[:-9], "the compressed file is damaged"),
    ("a.txt.xz", lzma.compress(b"1\n2\n")[:-9], "the compressed file is damaged"),
    ("a.txt.zst", b"1\n", "not unpacked here; use zstd -d first"),
]


@pytest.mark.parametrize(("name", "content", "said"), DAMAGED)
def test_damage_is_one_line_that_names_the_place(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match=said) as error:
        read_trace(path)
    assert str(error.value).startswith(f"trace {path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("block", [16, 64, 1 << 20])
def test_the_damaged_line_is_counted_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(traces, "BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(57)) + b"oops\n7\n")
    with pytest.raises(UsageProblem, match="line 58: 'oops'"):
        read_trace(path)
    path = tmp_path / "a.vscsi"
    path.write_bytes(vscsi(512, 0x28, 1) * 9 + vscsi(512, 0x55, 1))
    with pytest.raises(UsageProblem, match=f"byte {9 * 32}: "):
        read_trace(path)


def test_files_that_are_not_there_or_not_files(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"gone\.lis: no such file or directory; give the path of a trace"):
        read_trace(tmp_path / "gone.lis")
    with pytest.raises(UsageProblem, match="is a directory"):
        read_trace(tmp_path)


def test_the_option_offers_every_format() -> None:
    assert get_args(Format) == traces.FORMAT_NAMES


def test_an_unknown_format_names_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1\n")
    with pytest.raises(UsageProblem, match="there is no format 'blk'; give the option format: arc, vscsi, csv, pages"):
        read_trace(path, "blk")


def test_a_start_behind_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1\n2\n")
    with pytest.raises(UsageProblem, match="it has 2 references, none from 2 on; lower the option start"):
        read_trace(path, None, 2)


@given(st.binary(max_size=200), st.sampled_from(traces.FORMAT_NAMES))
def test_no_bytes_whatever_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, junk: bytes,
                                               form: str) -> None:
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes(junk)
    try:
        trace = read_trace(path, form, 0, 1000)
    except UsageProblem:
        return
    assert len(trace.pages) == len(trace.is_write) <= 1000
    assert set(trace.pages.tolist()) == set(range(trace.distinct))


FIGURES = [
    # file,                   references, distinct, writes in percent (shared/traces/README.md)
    ("oltp.lis.xz",           914145,     186880,   0),
    ("cloudphysics.vscsi.xz", 1141869,    269210,   57.5),
    ("hp-fileserver.csv.xz",  68102,      6349,     78.8),
    ("hp-swap.csv.xz",        5569,       995,      21.2),
    ("sprite.txt.gz",         133996,     7075,     0),
    ("multi3.txt.gz",         30241,      7454,     0),
    ("sqlite-tpcb.u32.xz",    150672,     4112,     66.9),
]


@pytest.mark.parametrize(("name", "references", "distinct", "writes"), FIGURES)
def test_the_real_traces_are_what_they_are_said_to_be(name: str, references: int, distinct: int, writes: float) -> None:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is not here: the public traces lie beside the project")
    trace = read_trace(path)
    assert (len(trace.pages), trace.distinct) == (references, distinct)
    assert round(100 * float(np.mean(trace.is_write)), 1) == writes
    assert trace.pages.max() == distinct - 1
