"""Sizes as people write them: `64MiB`, `4KiB`, `512B`; binary units only, and always whole bytes."""

import re

UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(text: str | int) -> int:
    """Return the bytes that `text` names; an int is bytes already.  Raise ValueError with one clear line."""
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(f"{text!r} is not a size; write a number and B, KiB, MiB or GiB, such as \"64MiB\"")
    if isinstance(text, int):
        if text < 0:
            raise ValueError(f"{text} is not a size; a size is not negative")
        return text
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in UNITS:
        raise ValueError(f"{text!r} is not a size; use B, KiB, MiB or GiB, such as \"64MiB\"")
    value = float(match[1]) * UNITS[match[2]]
    if value != int(value):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(value)


def format_size(size: float) -> str:
    """Return `size` bytes for reading: three digits or so and a binary unit."""
    for unit in ("GiB", "MiB", "KiB"):
        if abs(size) >= UNITS[unit]:
            return f"{size / UNITS[unit]:.1f} {unit}"
    return f"{size:.0f} B"
