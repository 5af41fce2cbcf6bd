"""The ABI, frozen: golden bytes both ways, the entry's layout, and messages that lie."""

import enum
from contextlib import suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm import abi
from shm.abi import ARGUMENTS, ENTRY, U32, U64, Op, PoolFlag, Refusal, Reply, Request, Status
from shm.errors import BadHypercall, UnknownCall

# A change here is a change of the ABI, and needs a new ABI_VERSION.
REQUESTS = [
    (Op.CONTROL, (5, 65535, 7, 0), "96 07 00 05 cdffff 07 00"),
    (Op.NEW_POOL, (0x01000001, 0, 1), "95 07 01 ce01000001 00 01"),
    (Op.DESTROY_POOL, (3,), "93 07 02 03"),
    (Op.NEW_PAGE, (1, 2, 3, 4, 5), "97 07 03 01 02 03 04 05"),
    (Op.PUT_PAGE, (1, 2, 3, 4, 5), "97 07 04 01 02 03 04 05"),
    (Op.GET_PAGE, (15, U64, 0, 1, U32), "97 07 05 0f cfffffffffffffffff 00 01 ceffffffff"),
    (Op.FLUSH_PAGE, (1, 2, 3, 4, 5), "97 07 06 01 02 03 04 05"),
    (Op.FLUSH_OBJECT, (1, 128, 256, 65536), "96 07 07 01 cc80 cd0100 ce00010000"),
    (Op.READ, (1, 2, 3, 4, 5, 6, 7, 8), "9a 07 08 01 02 03 04 05 06 07 08"),
    (Op.WRITE, (1, 2, 3, 4, 5, 6, 7, 8), "9a 07 09 01 02 03 04 05 06 07 08"),
    (Op.AUTH, (3, 1, 2, 1), "96 07 65 03 01 02 01"),
    (Op.RESTORE_NEW, (3, 1, 0x01000001, 0, 0), "97 07 66 03 01 ce01000001 00 00"),
    (Op.PING, (), "92 07 ccc8"),
    (Op.FAULT, (256,), "93 07 ccc9 cd0100"),
    (Op.MULTICALL, (64,), "93 07 ccca 40"),
    (Op.BALLOON, (256,), "93 07 cccb cd0100"),
    (Op.ESSA, (6, 256), "94 07 cccc 06 cd0100"),
    (Op.RELEASE, (1,), "93 07 cccd 01"),
    (Op.RESET, (), "92 07 ccce"),
    (Op.PIN, (256,), "93 07 cccf cd0100"),
    (Op.UNPIN, (1,), "93 07 ccd0 01"),
]
REPLIES = [
    (Status.OK, 0, "93 07 01 00"),
    (Status.NO, 0, "93 07 00 00"),
    (Status.EPERM, 0, "93 07 ff 00"),
    (Status.EIO, 0, "93 07 fb 00"),
    (Status.EACCES, 0, "93 07 f3 00"),
    (Status.EBUSY, 0, "93 07 f0 00"),
    (Status.ENOMEM, 7, "93 07 f4 07"),
    (Status.EFAULT, 0, "93 07 f2 00"),
    (Status.ENODEV, 0, "93 07 ed 00"),
    (Status.EINVAL, 0, "93 07 ea 00"),
    (Status.ENOSPC, 0, "93 07 e4 00"),
    (Status.EFROZEN, 1, "93 07 d1fc18 01"),
    (Status.EEMPTY, 0, "93 07 d1fc17 00"),
    (Status.EMOVED, 0, "93 07 d1fc16 00"),
]
NUMBERS = {
    "Op": {"CONTROL": 0, "NEW_POOL": 1, "DESTROY_POOL": 2, "NEW_PAGE": 3, "PUT_PAGE": 4, "GET_PAGE": 5, "FLUSH_PAGE": 6,
           "FLUSH_OBJECT": 7, "READ": 8, "WRITE": 9, "AUTH": 101, "RESTORE_NEW": 102,
           "PING": 200, "FAULT": 201, "MULTICALL": 202, "BALLOON": 203, "ESSA": 204, "RELEASE": 205, "RESET": 206,
           "PIN": 207, "UNPIN": 208},
    "Status": {"OK": 1, "NO": 0, "EPERM": -1, "EIO": -5, "ENOMEM": -12, "EACCES": -13, "EFAULT": -14, "EBUSY": -16,
               "ENODEV": -19, "EINVAL": -22, "ENOSPC": -28, "EFROZEN": -1000, "EEMPTY": -1001, "EMOVED": -1002},
    "PoolFlag": {"PERSIST": 1, "SHARED": 2, "PRECOMPRESSED": 4, "MUST_SHARE": 8},
    "Refusal": {"NONE": 0, "FROZEN": 1, "MIGRATING": 2, "BAD_FRAME": 3, "MAX_MEM": 4, "RESERVED": 5, "CAP": 6,
                "NO_FRAME": 7, "TARGET": 8},
}


@pytest.mark.parametrize("numbers", [Op, Status, PoolFlag, Refusal])
def test_numbers_are_for_ever(numbers: type[enum.IntEnum]):
    assert {member.name: int(member) for member in numbers} == NUMBERS[numbers.__name__]


def test_constants_are_for_ever():
    assert (abi.ABI_VERSION, abi.PAGE_SIZE, abi.MESSAGE_BYTES, abi.QUEUE_DEPTH, abi.MULTICALL_LIMIT) == (
        4, 4096, 512, 4, 256)
    assert (abi.PAGE_BITS_SHIFT, abi.PAGE_BITS_MASK, abi.VERSION_SHIFT, abi.VERSION_MASK, abi.RESERVED_FLAGS,
            abi.TMEM_VERSION) == (4, 0xF, 24, 0xFF, 0x00FFFF00, 1)


def test_golden_bytes_cover_every_call_and_every_status():
    assert {op for op, _, _ in REQUESTS} == set(Op) == set(ARGUMENTS)
    assert {status for status, _, _ in REPLIES} == set(Status)


@pytest.mark.parametrize(("op", "arguments", "wire"), REQUESTS, ids=[op.name for op, _, _ in REQUESTS])
def test_request_on_the_wire(op, arguments, wire):
    assert abi.encode_request(7, op, *arguments) == bytes.fromhex(wire)
    assert abi.decode_request(bytes.fromhex(wire)) == Request(7, op, arguments)


@pytest.mark.parametrize(("status", "value", "wire"), REPLIES, ids=[status.name for status, _, _ in REPLIES])
def test_reply_on_the_wire(status, value, wire):
    assert abi.encode_reply(7, status, value) == bytes.fromhex(wire)
    assert abi.decode_reply(bytes.fromhex(wire)) == Reply(7, status, value)


@pytest.mark.parametrize("op", Op)
def test_every_argument_may_be_as_large_as_its_field_and_no_larger(op):
    largest = ARGUMENTS[op]
    message = abi.encode_request(U32, op, *largest)
    assert len(message) <= abi.MESSAGE_BYTES
    assert abi.decode_request(message) == Request(U32, op, largest)
    for n, most in enumerate(largest):
        for wrong in (-1, most + 1, 0.0, True, None, "1", b"1", [1]):
            if wrong == U64 + 1:                     # msgpack itself cannot say it
                continue
            arguments = [*largest[:n], wrong, *largest[n + 1:]]
            with pytest.raises(BadHypercall, match=op.name):
                abi.decode_request(msgpack.packb((7, int(op), *arguments)))
    for arguments in (largest + (0,), largest[:-1] if largest else (1,)):
        with pytest.raises(BadHypercall, match="arguments, got"):
            abi.decode_request(msgpack.packb((7, int(op), *arguments)))


JUNK = [b"", b"\x00", b"\xc1", b"junk" * 128, msgpack.packb([]), msgpack.packb([7]), msgpack.packb(7),
        msgpack.packb({}), msgpack.packb({7: 200}), msgpack.packb(["7", 200]), msgpack.packb([7, "200"]),
        msgpack.packb([-1, 200]),
        msgpack.packb([U32 + 1, 200]), msgpack.packb([True, 200]), msgpack.packb([7, 200.0]),
        msgpack.packb([7, [200]]), msgpack.packb([7, {}]), msgpack.packb([7, 200]) + b"x",
        msgpack.packb([7, 200])[:-1], b"\xdd\xff\xff\xff\xff", b"\xc7\xff\x01"]


@pytest.mark.parametrize("message", JUNK, ids=repr)
def test_junk_is_a_bad_hypercall(message):
    with pytest.raises((BadHypercall, UnknownCall)):
        abi.decode_request(message)
    assert 0 <= abi.sequence_of(message) <= U32


@pytest.mark.parametrize("number", [10, 99, 103, 199, 299, -1, 1 << 31, 1 << 63])
def test_a_number_that_is_no_calls(number):
    """T28: XCHG among them."""
    with pytest.raises(UnknownCall, match=str(number)):
        abi.decode_request(msgpack.packb([7, number]))


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), U64), st.floats(), st.text(max_size=3),
                   st.binary(max_size=3), st.sampled_from([int(op) for op in Op]), st.just([]), st.just({}))


@given(st.one_of(st.binary(max_size=64), st.lists(VALUES, max_size=8).map(msgpack.packb)))
def test_no_bytes_make_decoding_raise_anything_else(message):
    try:
        request = abi.decode_request(message)
    except (BadHypercall, UnknownCall):
        assert 0 <= abi.sequence_of(message) <= U32
    else:
        limits = ARGUMENTS[request.op]
        assert 0 <= request.seq <= U32
        assert len(limits) == len(request.arguments)
        assert all(type(value) is int and 0 <= value <= limit
                   for value, limit in zip(request.arguments, limits, strict=True))


@given(st.sampled_from(REQUESTS), st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
       st.integers(0, 64))
def test_damaged_requests_are_calls_or_bad_hypercalls(request_, changes, length):
    message = bytearray(bytes.fromhex(request_[2]))
    for at, byte in changes:
        message[at % len(message)] = byte
    with suppress(BadHypercall, UnknownCall):
        assert isinstance(abi.decode_request(bytes(message[:length])), Request)


@given(st.binary(max_size=64))
def test_no_bytes_make_decoding_a_reply_raise_anything_else(message):
    with suppress(BadHypercall):
        assert isinstance(abi.decode_reply(message), Reply)


def test_the_sequence_of_a_malformed_request_is_found_where_there_is_one():
    assert abi.sequence_of(msgpack.packb([7, "what", 1])) == 7
    assert abi.sequence_of(msgpack.packb([-7])) == 0
    assert abi.sequence_of(b"\xc1") == 0


def test_layout_of_an_entry():
    offsets = {name: ENTRY.fields[name][1] for name in ENTRY.names}
    assert offsets == {"op": 0, "pool": 4, "oid": 8, "index": 32, "slot": 36, "status": 40, "reason": 44,
                       "offset": 48, "slot_offset": 52, "length": 56, "pad": 60}
    assert ENTRY.itemsize == 64
    entry = np.zeros((), ENTRY)
    entry["op"], entry["pool"], entry["oid"], entry["index"], entry["slot"], entry["status"] = (
        4, 1, (2, 3, 0x0102030405060708), 5, 6, -1001)
    assert entry.tobytes().hex(" ", 4) == (
        "04000000 01000000 02000000 00000000 03000000 00000000 08070605 04030201 05000000 06000000 17fcffff 00000000"
        " 00000000 00000000 00000000 00000000")
