"""The command `memcommons report`: reads a folder of results, writes one page and, with matplotlib, its pictures.

    0   written
    1   the page could not be written
    2   the folder holds nothing that can be reported: one line says what is wrong with it
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shm.errors import MemcommonsError, UsageProblem

if TYPE_CHECKING:
    from hypervisor.toolstack.reporting.page import Page
    from hypervisor.toolstack.reporting.sources import Found

commands = typer.Typer()
OK = 0
PAGE = "report.html"


@commands.command("report")
def report(
    folder: Annotated[Path, typer.Argument(help="What --out of run, compare, density, curves or claims named.")],
    out: Annotated[Path | None, typer.Option(help="The page's file; report.html in the folder without.")] = None,
) -> int:
    """Make one page of results that stands alone, for reading, printing and sending; and its pictures as PNG files."""
    from hypervisor.toolstack.reporting.page import html
    from hypervisor.toolstack.reporting.png import saved
    from hypervisor.toolstack.reporting.sources import found_in

    path = out or folder / PAGE
    try:
        found = found_in(folder)
    except OSError as error:
        raise UsageProblem(f"{folder}: {error.strerror}; give a folder that can be read") from error
    page = page_of(found)
    write(path, html(page, _made_of(folder)))
    print(path)
    for line in saved(page.charts, folder):
        print(line, file=sys.stderr)
    return OK


def page_of(found: "Found") -> "Page":
    """Return the page for what was found."""
    from hypervisor.toolstack.reporting import claims_page, compare_page, curves_page, density_page, run_page, sources

    match found:
        case sources.RunFound():
            return run_page.run_page(found)
        case sources.CompareFound():
            return compare_page.compare_page(found)
        case sources.DensityFound():
            return density_page.density_page(found)
        case sources.ClaimsFound():
            return claims_page.claims_page(found)
        case sources.CurvesFound():
            return curves_page.curves_page(found.told)


def write(path: Path, text: str) -> None:
    """Write the page; UsageProblem where it is wanted in a folder's place, MemcommonsError when it cannot be had."""
    try:
        path.write_text(text, encoding="utf-8")
    except IsADirectoryError:
        raise UsageProblem(f"--out: {path}: is a folder; give the name of a file") from None
    except OSError as error:
        raise MemcommonsError(f"{path}: {error.strerror}; give another file with --out") from error


def _made_of(folder: Path) -> str:
    from importlib.metadata import version

    return (f"Made by memcommons {version('memcommons')} of the files in {folder.name or folder}, "
            f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC.")
