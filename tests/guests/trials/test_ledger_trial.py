"""The I/O ledger of CMM2, played for real and small: every cell is what the table says (R43, R44, E19)."""

import pytest

from guests.trials import ledger, load
from guests.trials.ledger import CELLS, SCHEMES, Crossed, a_page, within
from guests.trials.vm import Transfers
from shm.errors import UsageProblem
from shm.userfault import open_userfault

COLUMNS = {scheme: [cell for cell in CELLS if cell.scheme == scheme] for scheme in SCHEMES}


@pytest.fixture(params=["software", "hardware"])
def faults(request) -> str:
    if request.param == "hardware":
        try:
            open_userfault().close()
        except UsageProblem as why:
            pytest.skip(str(why))
    return request.param


@pytest.mark.parametrize("scheme", SCHEMES)
def test_r43_every_cell_is_counted_as_the_table_says(hypervisor_process, scheme, faults):
    rows = ledger.run(hypervisor_process(2048, scheme).cluster, {"pages": 5, "faults": faults})["rows"]
    assert len(rows) == len(COLUMNS[scheme]) > 3
    assert [(row["row"], row["column"]) for row in rows if row["same"] is False] == []
    beside = {row["key"]: sum(row["counted"]) for row in rows if row["same"] is None}
    assert beside == ({"4 V": 1, "4 V+": 3} if scheme == "swap" else {}), "hints take two thirds off the second (E19)"
    assert sum(row["volatile_swap_writes"] for row in rows) == 0


def test_a_count_between_the_two_that_a_cell_allows_is_not_in_it():
    [cell] = [cell for cell in CELLS if (cell.row, cell.column) == ("3", "no hints")]
    assert [within(cell, Crossed(0, 0, reads, 1)) for reads in (0, 1, 0.5)] == [True, True, False]
    [beside] = [cell for cell in CELLS if (cell.row, cell.column) == ("4 V", "no hints")]
    assert within(beside, Crossed(0, 0, 0, 1)) is None


def test_transfers_of_file_and_swap_disk_are_both_the_guests():
    assert a_page(Transfers(2, 4, 6, 8, 10, 12), 2) == Crossed(4, 6, 5, 6)
    assert str(Crossed(1, 0, 0, 2)) == "3 = 1 F read + 2 H write" and str(Crossed(0, 0, 0, 0)) == "0"


def test_the_program_shows_the_table_beside_the_count(hypervisor_process, capsys):
    assert ledger.main([hypervisor_process(2048, "cmm2").cluster, "--pages", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("as it says") == len(COLUMNS["cmm2"])
    assert "dirty P page evicted" in shown and "2/2" in shown, "pages that crossed: the host's, of two played"


def test_a_row_that_differs_is_an_exit_status(hypervisor_process, capsys, monkeypatch):
    cluster = hypervisor_process(2048, "swap").cluster
    wrong = CELLS[0]._replace(least=Crossed(0, 0, 1, 0), most=Crossed(0, 0, 1, 0))
    monkeypatch.setattr(ledger, "CELLS", (wrong,))
    assert ledger.main([cluster, "--pages", "2"]) == 1
    assert "differs" in capsys.readouterr().out


def test_what_cannot_be_played_is_said_in_a_line(hypervisor_process, capsys):
    cluster = hypervisor_process(2048, "none", swap=0).cluster
    assert ledger.main([cluster]) == 2
    assert "no column for scheme 'none'; allowed: swap, cmm2, balloon, tmem" in capsys.readouterr().err
    with pytest.raises(UsageProblem, match="with 0 pages; allowed: 1 to 256"):
        ledger.run(cluster, {"pages": 0})


def test_it_is_a_trial():
    assert load("ledger") is ledger
