"""A real run under each scheme that this page's policies serve: every page verifies, and each leaves its own trace."""

import json

from harness.children import MEMCOMMONS

DEADLINE_S = 200.0
SCENARIO = """
name = "two"
budget = "8MiB"
operations = 150
[balloon]
interval = 0.1
[[guest]]
name = "bank"
ram = "8MiB"
workload = "sqlite"
weight = 3
[[guest]]
name = "numbers"
ram = "8MiB"
workload = "analytics"
"""


def test_every_page_is_right_and_each_scheme_does_what_it_says(python_process, tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(SCENARIO)
    child = python_process(MEMCOMMONS, "run", str(path), "--scheme", "light,more-ram,balloon", "--json", "--faults",
                           "software")
    out, said = child.process.communicate(timeout=DEADLINE_S)
    assert child.process.returncode == 0, said
    light, more_ram, balloon = json.loads(out)["runs"]
    for summary in (light, more_ram, balloon):
        assert summary["audit"]["max_drift_frames"] == 0
        assert summary["arena"]["peak_frames"] <= summary["arena"]["budget_frames"]
        assert all(guest["mismatches"] == 0 < guest["pages_verified"] for guest in summary["guests"])
    assert light["counters"]["essa"] > 0 and light["counters"]["swap_out"] > 0 == light["counters"]["discards"]
    assert [guest["ram_given_bytes"] for guest in more_ram["guests"]] == [6 << 20, 2 << 20]
    assert more_ram["counters"]["swap_out"] == more_ram["counters"]["tmem_puts"] == 0
    assert balloon["counters"]["balloon_pages"] > 0 and balloon["counters"]["freed_unused"] > 0
    assert balloon["policy"]["balloon"]["controller"] == "shares"
