"""The census of states: the two tables of the v7 cover letter (reference 3.1), and what is left of an empty guest."""

import pytest

from hypervisor.census import census_table

BOOT = {"Sr": 19673, "Sz": 46, "Ur": 2734, "Uz": 232682, "Pr": 1, "Vr": 7008}
GREP = {"Sr": 43744, "Sz": 40, "Ur": 2397, "Uz": 76234, "Pr": 2, "Vr": 139727}
TABLES = {
    "after boot": (BOOT, [("S", 19673, 0, 46, 19719), ("U", 2734, 0, 232682, 235416), ("P", 1, 0, 0, 1),
                          ("V", 7008, 0, 0, 7008), ("sum", 29416, 0, 232728, 262144)], 23.8, 33.1),
    "after grep": (GREP, [("S", 43744, 0, 40, 43784), ("U", 2397, 0, 76234, 78631), ("P", 2, 0, 0, 2),
                          ("V", 139727, 0, 0, 139727), ("sum", 185870, 0, 76274, 262144)], 75.2, 76.5),
}


@pytest.mark.parametrize(("states", "rows", "volatile", "reclaimable"), TABLES.values(), ids=list(TABLES))
def test_reference_vectors(states, rows, volatile, reclaimable):
    census = census_table(states)
    assert list(census.rows) == rows
    assert (round(census.volatile_percent, 1), round(census.reclaimable_percent, 1)) == (volatile, reclaimable)


def test_preserved_pages_have_their_column_and_are_not_resident():
    census = census_table({"Sp": 5, "Vz": 2, "Vr": 1})
    assert census.rows[0] == ("S", 0, 5, 0, 5)
    assert census.rows[3] == ("V", 1, 0, 2, 3)
    assert census.reclaimable_percent == 100.0


def test_a_guest_without_frames_has_no_share():
    assert census_table({"Sz": 16})[1:] == (0.0, 0.0)
