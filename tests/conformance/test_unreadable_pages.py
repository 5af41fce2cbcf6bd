"""One unreadable page of a batch is one EIO, as with single calls."""

from caller import OID, PP, Caller, noise

from shm.abi import Op, Status


def test_one_unreadable_page_is_one_eio(still_machine, monkeypatch):
    still = still_machine(1024, "cmm2+tmem", 256, write_back=True)
    a = Caller(still, pages=16, max_pages=500)
    pool = a.new_pool(PP)
    for index in range(8):
        a.put(pool, noise(index), OID, index)
    assert still.machine.store.write_pages_back(1) == 1

    def fails(slots):
        raise OSError(5, "EIO")
    monkeypatch.setattr(still.machine.swap, "read", fails)
    for index in range(8):
        a.enter(index, Op.GET_PAGE, pool, OID, index, index)
    a.call(Op.MULTICALL, 8)
    assert a.transfer.entries["status"][:8].tolist() == [Status.EIO] + [Status.OK] * 7
