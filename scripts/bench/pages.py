"""Real pages to store: of a SQLite database, of Python sources, of numpy arrays.

Every kind gives an array (n, 4096) of uint8.  The content follows from a seed, or from the interpreter at hand.
"""

import builtins
import keyword
import sqlite3
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

PAGE = 4096
_WORDS = sorted({*keyword.kwlist, *dir(builtins)})          # what the notes are made of


def sqlite_pages(count: int) -> np.ndarray:
    """Return pages of a database of orders: rows in a table, and an index over their text."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "orders.db"
        link = sqlite3.connect(file)
        try:
            link.execute(f"PRAGMA page_size = {PAGE}")
            link.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER, note TEXT)")
            link.execute("CREATE INDEX by_customer ON orders (customer)")
            while file.stat().st_size < 2 * count * PAGE:
                link.executemany("INSERT INTO orders (customer, cents, note) VALUES (?, ?, ?)", _orders(rng, 4096))
                link.commit()
        finally:
            link.close()
        return _cut(file.read_bytes(), count)


def _orders(rng: np.random.Generator, count: int) -> list[tuple[str, int, str]]:
    customers, cents = rng.integers(0, 50_000, count).tolist(), rng.integers(1, 1_000_000, count).tolist()
    notes = rng.choice(_WORDS, (count, 6)).tolist()
    return [(f"customer {customer}", price, " ".join(note))
            for customer, price, note in zip(customers, cents, notes, strict=True)]


def source_pages(count: int) -> np.ndarray:
    """Return pages of the standard library's sources, each file to the end of its last page, as in a page cache."""
    found = bytearray()
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        content = file.read_bytes()
        found += content + bytes(-len(content) % PAGE)
        if len(found) >= count * PAGE:
            break
    return _cut(bytes(found), count)


def array_pages(count: int) -> np.ndarray:
    """Return pages of measurements: one half float64 of a random walk, one half small int64."""
    rng, words = np.random.default_rng(2), count * PAGE // 16
    floats = np.cumsum(rng.standard_normal(words)).round(2)
    return _cut(floats.tobytes() + rng.integers(0, 1000, words).tobytes(), count)


def _cut(content: bytes, count: int) -> np.ndarray:
    """Return `count` pages spread evenly over `content`."""
    pages = np.frombuffer(content, np.uint8, len(content) // PAGE * PAGE).reshape(-1, PAGE)
    return pages[np.arange(count) * len(pages) // count].copy()


KINDS: dict[str, Callable[[int], np.ndarray]] = {
    "sqlite": sqlite_pages, "sources": source_pages, "arrays": array_pages,
}
