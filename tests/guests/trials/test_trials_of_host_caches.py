"""Trials of disks that the host caches beside tmem, each for real and small."""

import pytest

from guests.hostcache import HostCaches
from guests.trials import base_images, cached_disk, dead_blocks, known, shrinking
from shm.abi import PAGE_SIZE


@pytest.mark.parametrize("scheme", ["tmem", "swapcache"])
def test_each_operation_is_counted_alone(machine, scheme, monkeypatch):
    for name, value in {"RAM": 96, "FILLER": 128, "REGION": 112}.items():
        monkeypatch.setattr(cached_disk, name, value)
    found = cached_disk.run(machine(2048, scheme).cluster, {"pages": 32})
    rows = {row["operation"]: row for row in found["rows"]}
    assert rows["first-read"]["disk_reads"] == 32
    assert [rows[name]["disk_reads"] for name in ("read-again", "read-back", "write-back")] == [0, 0, 0]
    assert rows["write"]["disk_writes"] == 32
    assert (rows["swap-out"]["swap_writes"] > 0) == (scheme == "swapcache"), "it writes through"
    assert rows["swap-in"]["swap_reads"] == 0
    assert (found["doubled"]["twice"] > 0) == (scheme == "swapcache")
    assert not found["wrong"]


@pytest.mark.parametrize(("scheme", "trim", "dead"), [
    ("swapcache", False, True), ("swapcache", True, False), ("tmem", False, False)])
def test_dead_blocks_lie_in_a_cache_that_is_not_told(machine, scheme, trim, dead, monkeypatch):
    for name, value in {"RAM": 96, "LIVE": 64, "TEMPORARY": 48, "REGION": 112}.items():
        monkeypatch.setattr(dead_blocks, name, value)
    found = dead_blocks.run(machine(512, scheme).cluster, {"rounds": 2, "trim": trim})
    assert (found["dead"] > 0) == dead
    assert found["dead"] <= found["frames"] and not found["wrong"]


@pytest.mark.parametrize(("arm", "settings", "shrinking_writes", "kept"), [
    ("tmem", {"scheme": "tmem"}, False, False), ("persistent", {"scheme": "tmem"}, False, False),
    ("through", {"scheme": "swapcache"}, False, True),
    ("back", {"scheme": "tmem", "write_back": True, "swap": 2048}, True, True)])
def test_what_shrinking_writes_depends_on_who_may_forget(machine, arm, settings, shrinking_writes, kept,
                                                             monkeypatch):
    monkeypatch.setattr(shrinking, "RAM", 16)
    found = shrinking.run(machine(1024, **settings).cluster, {"arm": arm, "pages": 256})
    assert (found["written_by_shrinking"] > 0) == shrinking_writes
    assert (found["found"] == 512) == kept
    assert not found["wrong"]
    if arm == "persistent":
        assert (found["returned_frames"], found["stored_again"], found["found"]) == (0, 0, 256)
    else:
        assert found["returned_frames"] >= 190 and found["stored_again"] == 256


@pytest.mark.parametrize(("arm", "settings", "once"), [
    ("cache-shared", {"scheme": "swapcache"}, True), ("cache-separate", {"scheme": "swapcache"}, False),
    ("tmem-separate", {"scheme": "tmem"}, False), ("tmem-shared", {"scheme": "tmem"}, True),
    ("tmem-dedup", {"scheme": "tmem", "dedup_across": True}, True)])
def test_an_image_lies_once_where_it_is_known_to_be_one(machine, arm, settings, once, monkeypatch):
    monkeypatch.setattr(base_images, "RAM", 64)
    monkeypatch.setattr(base_images, "BASE", 96)
    found = base_images.run(machine(1024, **settings).cluster, {"arm": arm, "guests": 2})
    assert (found["frames"] == found["different"]) == once
    assert found["frames"] >= found["different"] > 32 and not found["wrong"]


def test_a_cache_that_others_use_is_of_no_disk_that_can_be_written(machine):
    running = machine(512, "swapcache")
    guests = [running.guest(name, 64) for name in ("one", "two")]
    disks = [known.disk_of(guest, 8) for guest in guests]
    try:
        caches = [HostCaches(guest.tmem, guest.counters, shared=5) for guest in guests]
        with pytest.raises(ValueError, match="open the disk for reading only"):
            caches[0].front(disks[0])
        for disk in disks:
            disk.writable = False
        first, second = (cache.front(disk) for cache, disk in zip(caches, disks, strict=True))
        first.read(0, 8)
        first._put_waiting()
        second._disk = None                          # whoever asks the disk now fails
        assert second.read(0, 8).tobytes() == known.pages_of(range(8)).tobytes()
        assert second.read(3).nbytes == PAGE_SIZE
    finally:
        for disk in disks:
            disk.close()
