"""T91: whatever the form, a guest sees the same.  One trace of 100,000 operations, random but always the same one.

Two guests, each with an ephemeral, a persistent and a shared pool; single calls and multicalls, among these such as the
store carries out in bulk.  All answers, and all pages that come, go into one hash.
"""

from collections.abc import Iterator

import numpy as np
import xxhash
from caller import EP, ES, FORMS, PP, Caller, page

from hypervisor.tmem.control import EVERYBODY
from hypervisor.tmem.forms import Form
from shm.abi import PAGE_SIZE, Op, Status

OPERATIONS = 100_000
PART = 10_000
CHANCES = {Op.PUT_PAGE: 0.4, Op.GET_PAGE: 0.3, Op.FLUSH_PAGE: 0.1, Op.FLUSH_OBJECT: 0.02, Op.NEW_PAGE: 0.04,
           Op.READ: 0.07, Op.WRITE: 0.07}
LONGEST = 96                 # operations of one multicall
CONTENTS = 64
ENOUGH = 1 << 13             # frames: more than there are handles
KINDS = (EP, PP, ES)
OBJECTS, INDEXES = 4, 48     # of a pool
SPREAD = 0x0500_0001         # between two indexes
SINGLE, BULK = 0.1, 0.75     # of all batches are single calls; are one operation on handles that are all different
FEWEST_HITS = OPERATIONS // 20


def operations(rng: np.random.Generator) -> np.ndarray:
    """Return the whole trace: for each operation the handle, the page that it puts, and its window."""
    made = np.zeros(OPERATIONS, [("op", "u4"), ("pool", "u4"), ("oid", "u8", 3), ("index", "u4"), ("content", "u4"),
                                 ("window", "u4", 3)])
    made["op"] = rng.choice(list(CHANCES), OPERATIONS, p=list(CHANCES.values()))
    made["pool"] = rng.integers(0, len(KINDS), OPERATIONS)
    made["oid"][:, 1] = rng.integers(0, OBJECTS, OPERATIONS)
    made["index"] = rng.integers(0, INDEXES, OPERATIONS) * SPREAD
    made["content"] = rng.integers(0, CONTENTS, OPERATIONS)
    made["window"][:, :2] = rng.integers(0, PAGE_SIZE + 1, (OPERATIONS, 2))
    made["window"][:, 2] = rng.integers(0, PAGE_SIZE // 2, OPERATIONS)
    return made


def make_bulk(part: np.ndarray, rng: np.random.Generator) -> None:
    """Turn operations into one on one pool, which the store carries out in bulk."""
    part["op"], part["pool"] = part["op"][0], part["pool"][0]
    handles = rng.permutation(OBJECTS * INDEXES)[:len(part)]
    part["oid"][:, 1], part["index"] = handles % OBJECTS, handles // OBJECTS * SPREAD


def batches(most: int = OPERATIONS) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yield the trace in parts: whose turn it is, how the part is made (a number from 0 to 1), its operations."""
    rng = np.random.default_rng(0)
    made, at = operations(rng), 0
    while at < most:
        part, way = made[at:at + int(rng.integers(1, LONGEST))], rng.random()
        at += len(part)
        if SINGLE < way < SINGLE + BULK:
            make_bulk(part, rng)
        yield int(rng.integers(0, 2)), way, part


def one_by_one(guest: Caller, part: np.ndarray, pages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make the calls of a part; return the answers, and the slots as they were left."""
    statuses, left = np.zeros(len(part), np.int32), np.empty((len(part), PAGE_SIZE), np.uint8)
    for at, row in enumerate(part):
        op, handle = Op(int(row["op"])), (int(row["pool"]), *row["oid"].tolist())
        arguments = handle if op == Op.FLUSH_OBJECT else (*handle, int(row["index"]))
        guest.transfer.pages[0] = pages[row["content"]]
        statuses[at] = guest.call(op, *arguments, *(row["window"].tolist() if op in (Op.READ, Op.WRITE) else ())).status
        left[at] = guest.transfer.pages[0]
    return statuses, left


def at_once(guest: Caller, part: np.ndarray, pages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same as one multicall."""
    entries, count = guest.transfer.entries[:len(part)], len(part)
    entries[:] = 0
    for field in ("op", "pool", "oid", "index"):
        entries[field] = part[field]
    for at, field in enumerate(("offset", "slot_offset", "length")):
        entries[field] = part["window"][:, at]
    entries["slot"] = np.arange(count)
    guest.transfer.pages[:count] = pages[part["content"]]
    assert guest.call(Op.MULTICALL, count).status == Status.OK
    return entries["status"].astype(np.int32), np.ascontiguousarray(guest.transfer.pages[:count])


def what_guests_see(still, changing: bool = False, single: float = SINGLE, most: int = OPERATIONS) -> tuple[str, int]:
    """Run the trace; return the hash of all that the guests saw, and how many gets hit.

    Now and then a guest is frozen for some parts.  `changing`: the form changes all along.  `single`: which parts are
    single calls.
    """
    guests = [Caller(still, max_pages=ENOUGH // 2) for _ in range(2)]
    assert [guest.new_pool(flags) for guest in guests for flags in KINDS] == [0, 1, 2] * 2
    pages, seen, hits = np.stack([page(content) for content in range(CONTENTS)]), xxhash.xxh64(), 0
    for number, (whose, way, part) in enumerate(batches(most)):
        if changing and number % 16 == 0:
            still.machine.control.set_form(EVERYBODY, Form(number // 16 % len(Form)))
        if number % 16 in (8, 12):
            still.machine.control.freeze(guests[number // 16 % 2].number, frozen=number % 16 == 8)
        statuses, left = (one_by_one if way < single else at_once)(guests[whose], part, pages)
        seen.update(statuses.tobytes())
        seen.update(left)
        hits += int(np.count_nonzero((statuses == Status.OK) & (part["op"] == Op.GET_PAGE)))
    assert still.machine.store.evictions == 0
    return seen.hexdigest(), hits


def test_t91_a_long_trace_looks_the_same_in_every_form(still_machine):
    machines = {form: still_machine(ENOUGH, "tmem", 0, form=form) for form in FORMS}
    results = {form: what_guests_see(machine) for form, machine in machines.items()}
    results["changing"] = what_guests_see(still_machine(ENOUGH, "tmem", 0), changing=True)
    assert len(set(results.values())) == 1, results
    assert results["raw"][1] > FEWEST_HITS
    frames = {form: machine.machine.store.heap.in_use for form, machine in machines.items()}
    assert max(frames["lz4"], frames["dedup"], frames["tze"]) < frames["raw"], "the forms were not used"


def test_t91_a_multicall_means_what_single_calls_mean(still_machine, form):
    """One after the other: a part of the trace, all by single calls, and all by multicalls."""
    results = [what_guests_see(still_machine(ENOUGH, "tmem", 0, form=form), single=single, most=PART)
               for single in (0, 1)]
    assert results[0] == results[1]
