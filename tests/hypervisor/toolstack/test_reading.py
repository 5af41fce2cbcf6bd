"""Scenario files: a table of what may go wrong, and the one line that says so."""

import pytest

from hypervisor.schemes import offered
from hypervisor.toolstack.reading import listed, load
from hypervisor.toolstack.scenario import WORKLOADS
from shm.errors import UsageProblem

HEAD = 'name = "x"\nbudget = "64MiB"\nseconds = 5\n'
GUEST = '[[guest]]\nname = "bank"\nram = "64MiB"\nworkload = "sqlite"\n'
SCHEMES = "none, more-ram, swap, balloon, light, tmem, swapcache, cmm2, cmm2+balloon, cmm2+tmem"

# (scenario, the whole line after "FILE: ")
WRONG = [
    (HEAD + GUEST + 'colour = "red"', "guest[0].colour: is no key here; allowed: "
                                      "name, count, ram, workload, weight, options"),
    (HEAD + "size = 1\n" + GUEST, "size: is no key here; allowed: name, budget, scheme, seconds, operations, seed, "
                                  "faults, hypervisor, tmem, balloon, disk, guest"),
    (HEAD + "[hypervisor]\nswp = 1\n" + GUEST, "hypervisor.swp: is no key here; allowed: reclaim, bias, "
                                               "swap, cmma, folder"),
    (HEAD + GUEST.replace("64MiB", "64MB"),
     "guest[0].ram: '64MB' is not a size; use B, KiB, MiB or GiB, such as \"64MiB\""),
    (HEAD + GUEST.replace('"64MiB"', "64"),
     'guest[0].ram: 64 is not a size; use B, KiB, MiB or GiB, such as "64MiB"'),
    (HEAD + GUEST.replace("64MiB", "1000000B"),
     "guest[0].ram: 976.6 KiB is no RAM for a guest; use whole pages of 4096 bytes, at least 1 MiB"),
    (HEAD.replace("64MiB", "-3MiB") + GUEST,
     'budget: \'-3MiB\' is not a size; use B, KiB, MiB or GiB, such as "64MiB"'),
    (HEAD.replace("64MiB", "1MiB") + GUEST,
     "budget: 1.0 MiB is below the floor; use at least 1280 KiB (1 MiB, and 64 pages for each guest)"),
    (HEAD.replace("64MiB", "67108865B") + GUEST, "budget: 67108865 bytes are no whole pages; use a multiple of 4 KiB"),
    (HEAD.replace('budget = "64MiB"\n', "") + GUEST, "budget: is missing"),
    (HEAD, "no guests; write at least one [[guest]] with name, ram and workload"),
    (HEAD + GUEST.replace("[[guest]]", "[guest]"), "guest: must be a list of tables; write [[guest]]"),
    (HEAD + 'guest = ["bank"]\n', "guest[0]: must be a table"),
    (HEAD + 'scheme = "xen"\n' + GUEST, f"scheme: 'xen' is not a scheme; allowed: {SCHEMES}"),
    (HEAD + 'scheme = "baseline"\n' + GUEST, f"scheme: 'baseline' is not a scheme; allowed: {SCHEMES}"),
    (HEAD + GUEST.replace("sqlite", "oracle"),
     f"guest[0].workload: 'oracle' is not a workload; allowed: {', '.join(WORKLOADS)}"),
    (HEAD + GUEST.replace('name = "bank"\n', ""), "guest[0].name: is missing"),
    (HEAD + GUEST.replace("bank", "../bank"), "guest[0].name: '../bank' is no name; up to 24 letters, digits, - and _, "
                                              "a letter or digit first"),
    (HEAD + GUEST + "count = 0", "guest[0].count: 0 is too small; at least 1"),
    (HEAD + GUEST + "count = 129", "guest[0].count: 129 is too large; at most 128"),
    (HEAD + GUEST + "count = 100\n" + GUEST.replace("bank", "b2") + "count = 29",
     "guest: 129 guests are too many; allowed: 128 in all"),
    (HEAD + GUEST + "count = 1.5", "guest[0].count: 1.5 is not a whole number"),
    (HEAD + GUEST + "count = true", "guest[0].count: True is not a whole number"),
    (HEAD + GUEST + "options = 3", "guest[0].options: must be a table"),
    (HEAD + GUEST + GUEST, "guest[1].name: 'bank' is taken; give each guest a name of its own"),
    (HEAD + GUEST + "count = 2\n" + GUEST.replace("bank", "bank-2"),
     "guest[1].name: 'bank-2' is taken; give each guest a name of its own"),
    (HEAD + "operations = 5\n" + GUEST,
     "seconds and operations are both given; give one of them, such as seconds = 20"),
    (HEAD.replace("seconds = 5\n", "") + GUEST,
     "neither seconds nor operations is given; give one of them, such as seconds = 20"),
    (HEAD.replace("= 5", "= 0") + GUEST, "seconds: 0 is too small; it must be above 0.0"),
    (HEAD.replace("= 5", "= nan") + GUEST, "seconds: nan is not a finite number"),
    (HEAD.replace("= 5", '= "5"') + GUEST, "seconds: '5' is not a number"),
    (HEAD + "seed = -1\n" + GUEST, "seed: -1 is too small; at least 0"),
    (HEAD + 'faults = "soft"\n' + GUEST, "faults: 'soft' is not allowed; allowed: auto, software, hardware"),
    (HEAD + '[hypervisor]\nreclaim = "lru"\n' + GUEST,
     "hypervisor.reclaim: 'lru' is not allowed; allowed: hint-after-choice, u-e-v-p-s"),
    (HEAD + "[hypervisor]\nbias = 1.5\n" + GUEST, "hypervisor.bias: 1.5 is too large; at most 1.0"),
    (HEAD + '[hypervisor]\nbias = "much"\n' + GUEST, "hypervisor.bias: 'much' is not a number"),
    (HEAD + '[hypervisor]\nreclaim = "u-e-v-p-s"\nbias = 0.5\n' + GUEST,
     'hypervisor.bias: u-e-v-p-s has no bias to be set; write it with reclaim = "hint-after-choice", or leave it out'),
    (HEAD + "hypervisor = 3\n" + GUEST, "hypervisor: must be a table"),
    (HEAD + '[tmem]\nform = "zip"\n' + GUEST, "tmem.form: 'zip' is not allowed; allowed: raw, lz4, dedup, tze"),
    (HEAD + '[tmem]\nquirks = "xen"\n' + GUEST, "tmem.quirks: 'xen' is not allowed; allowed: none, xen-4.2"),
    (HEAD + '[tmem]\nselfballoon = 1\n' + GUEST, "tmem.selfballoon: 1 is neither true nor false"),
    (HEAD + "[tmem]\nephemeral_pages = -5\n" + GUEST, "tmem.ephemeral_pages: -5 is too small; at least 0"),
    (HEAD + '[tmem]\ntargets = "fair"\n' + GUEST,
     "tmem.targets: 'fair' is not allowed; allowed: greedy, static, reconfigured, demand"),
    (HEAD + '[balloon]\ncontroller = "vmrm"\n' + GUEST,
     "balloon.controller: 'vmrm' is not allowed; allowed: timed, shares, self"),
    (HEAD + "[balloon]\ninterval = 0.01\n" + GUEST, "balloon.interval: 0.01 is too small; at least 0.1"),
    (HEAD + '[balloon]\nstep = "1KiB"\n' + GUEST,
     "balloon.step: 1.0 KiB is no step for balloons; use whole pages of 4096 bytes"),
    (HEAD + "[balloon]\ntax = 1.0\n" + GUEST, "balloon.tax: 1.0 is too large; it must be below 1.0"),
    (HEAD + "[balloon]\nfloor = 1\n" + GUEST,
     "balloon.floor: is no key here; allowed: controller, interval, step, tax"),
    (HEAD + '[disk]\nlatency = "tape"\n' + GUEST,
     "disk.latency: 'tape' is not allowed; allowed: none, ssd, hdd, network"),
    (HEAD + '[disk]\ntime = "real"\n' + GUEST, "disk.time: 'real' is not allowed; allowed: virtual, waited"),
    (HEAD + '[disk]\ndirect = 1\n' + GUEST, "disk.direct: 1 is neither true nor false"),
    (HEAD + '[disk]\ndirect = true\nlatency = "ssd"\n' + GUEST,
     "disk.latency: 'ssd' is a model, and direct = true is the disk that there is; use one of the two"),
    (HEAD + 'disk = "ssd"\n' + GUEST, "disk: must be a table"),
    ("name = x\n", "is not TOML: Invalid value (at line 1, column 8)"),
    (HEAD + "seconds = 6\n", "is not TOML: Cannot overwrite a value (at line 4, column 12)"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[line[:40] for _, line in WRONG])
def test_wrong_scenario_is_one_line_with_file_key_and_what_is_allowed(tmp_path, monkeypatch, text, line):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(UsageProblem) as caught:
        load(path)
    assert str(caught.value) == f"x.toml: {line}"


@pytest.mark.parametrize(("content", "line"), [
    (None, "no such file or directory; name a scenario file"),
    (b"name = \"\xff\"", "is not UTF-8 text (byte 8); a scenario is TOML")])
def test_file_that_cannot_be_read(tmp_path, content, line):
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageProblem) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {line}"


# (options, the whole line); the file itself is right.
WRONG_OPTIONS = [
    ({"budget": "64MB"}, '--budget: \'64MB\' is not a size; use B, KiB, MiB or GiB, such as "64MiB"'),
    ({"budget": "64KiB"}, "--budget: 64.0 KiB is below the floor; use at least 1280 KiB (1 MiB, and 64 pages for each "
                          "guest)"),
    ({"scheme": "xen"}, f"--scheme: 'xen' is not a scheme; allowed: {SCHEMES}"),
    ({"operations": 0}, "--ops: 0 is too small; at least 1"),
    ({"seconds": -1.0}, "--seconds: -1.0 is too small; it must be above 0.0"),
    ({"seconds": 1.0, "operations": 1}, "--seconds and --ops exclude each other; give one of them"),
    ({"faults": "soft"}, "--faults: 'soft' is not allowed; allowed: auto, software, hardware"),
    ({"seed": -4}, "--seed: -4 is too small; at least 0"),
    ({"disk": "tape"}, "--disk: 'tape' is not allowed; allowed: none, ssd, hdd, network"),
]


@pytest.mark.parametrize(("options", "line"), WRONG_OPTIONS)
def test_wrong_option_is_named_as_an_option(tmp_path, options, line):
    path = tmp_path / "x.toml"
    path.write_text(HEAD + GUEST)
    with pytest.raises(UsageProblem) as caught:
        load(path, options)
    assert str(caught.value) == line


def test_options_stand_in_for_keys(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(HEAD + GUEST)
    table = load(path, {"budget": "32MiB", "scheme": "swap", "operations": 7, "seed": 9}).table
    assert (table.budget, table.scheme, table.seconds, table.operations, table.seed) == (32 << 20, "swap", None, 7, 9)


def test_what_is_not_written_has_its_value(tmp_path):
    path = tmp_path / "four-guests.toml"
    path.write_text('budget = "64MiB"\nseconds = 5\n' + GUEST + "count = 2\n[guest.options]\nrows = 5\n")
    scenario = load(path)
    assert scenario.name == "four-guests"
    assert scenario.swap_bytes == scenario.total_ram == 128 << 20
    assert [(g.name, g.ram, g.options) for g in scenario.guests] == [
        ("bank-1", 64 << 20, {"rows": 5}), ("bank-2", 64 << 20, {"rows": 5})]
    assert scenario.folder == tmp_path
    assert (scenario.table.scheme, scenario.table.hypervisor.reclaim) == ("cmm2+tmem", "hint-after-choice")


@pytest.mark.parametrize(("count", "names"), [
    (1, ["bank"]),
    (3, ["bank-1", "bank-2", "scan"]),
    (4, ["bank-1", "bank-2", "bank-3", "scan"]),
    (7, ["bank-1", "bank-2", "bank-3", "bank-4", "bank-5", "scan-1", "scan-2"])])
def test_guests_in_all_are_dealt_out_in_proportion(tmp_path, count, names):
    path = tmp_path / "x.toml"
    path.write_text(HEAD + GUEST + "count = 2\n" + GUEST.replace("bank", "scan"))
    assert [guest.name for guest in load(path, guests=count).guests] == names


@pytest.mark.parametrize(("given", "schemes"), [
    (None, []), ("swap", ["swap"]), ("none, swap,none", ["none", "swap"]), ("cmm2+tmem", ["cmm2+tmem"])])
def test_list_of_schemes(given, schemes):
    assert listed(given) == schemes


@pytest.mark.parametrize("given", ["", "swap,", "baseline", "cmm2 tmem"])
def test_wrong_list_of_schemes(given):
    with pytest.raises(UsageProblem, match=r"^--scheme: '.*' is not a scheme; allowed: none, more-ram"):
        listed(given)


def test_default_scenario_is_right():
    from hypervisor.toolstack.reading import default_path
    scenario = load(default_path())
    assert len(scenario.guests) >= 4
    assert len({guest.workload for guest in scenario.guests}) >= 2
    assert scenario.table.budget <= 0.55 * scenario.total_ram
    assert scenario.table.scheme in offered()
