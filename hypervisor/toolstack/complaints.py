"""What a person reads when pydantic refuses a key: one line, in our words, with what is allowed.

It knows nothing of scenarios: it is given the error, and the keys that each table allows.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Error type -> sentence.  {input} is what was written, the other names come from the error's own context.
SAYS: dict[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is no key here; allowed: {allowed}",
    "int_type": "{input} is not a whole number",
    "bool_type": "{input} is neither true nor false",
    "float_type": "{input} is not a number",
    "string_type": "{input} is not a text; put it in quotes",
    "list_type": "must be a list of tables; write [[{key}]]",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "literal_error": "{input} is not allowed; allowed: {expected}",
    "string_pattern_mismatch": "{input} is no name; up to 24 letters, digits, - and _, a letter or digit first",
    "greater_than": "{input} is too small; it must be above {gt}",
    "greater_than_equal": "{input} is too small; at least {ge}",
    "less_than": "{input} is too large; it must be below {lt}",
    "less_than_equal": "{input} is too large; at most {le}",
    "finite_number": "{input} is not a finite number",
    "value_error": "{error}",
}


def dotted(place: Sequence[str | int]) -> str:
    """Return a place as people write it: ("guest", 0, "ram") is guest[0].ram."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def sentence(error: Mapping[str, Any], allowed: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Return (key, what is wrong with it) for one of pydantic's errors; `allowed`: table name -> its keys."""
    place = tuple(error["loc"])
    table = str(place[0]) if len(place) > 1 else ""
    words = {
        "input": _shown(error.get("input")), "key": place[0] if place else "",
        "allowed": ", ".join(allowed.get(table, ())), **error.get("ctx", {})}
    if "expected" in words:
        words["expected"] = re.sub(r"'| or", lambda m: "," if m[0] == " or" else "", str(words["expected"]))
    pattern = SAYS.get(error["type"])
    return dotted(place), pattern.format(**words) if pattern else str(error["msg"])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
