"""The pictures of the curves, as PNG files: DIR/WORKLOAD-DISK.png, those that `memcommons report` puts on its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypervisor.toolstack.compare.outcome import Outcome, document
from hypervisor.toolstack.curves.grid import Picture
from hypervisor.toolstack.reporting.curves_page import pictures
from hypervisor.toolstack.reporting.png import saved
from hypervisor.toolstack.reporting.told import Comparison


def drawn(found: Mapping[Picture, Outcome], facts: Mapping[Picture, Mapping[str, Any]], folder: Path) -> list[str]:
    """Draw each picture of which anything is finished; return what there is to say of it."""
    told = {picture.key: Comparison.model_validate(document(one, facts[picture])) for picture, one in found.items()}
    return saved(pictures(told).values(), folder, "--out: ")
