"""HTML and SVG as text in which nothing that came from a file is ever an element: whatever is no Markup is escaped.

Characters that show nothing or turn the direction of writing (controls, format, halves of surrogates) become U+FFFD.
"""

import unicodedata
from html import escape

INVISIBLE = {"Cc", "Cf", "Cs"}
KEPT = {"\n", "\t"}
EMPTY = {"meta", "br", "hr", "line", "rect", "circle", "path", "polyline", "polygon", "col"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Markup | None


def clean(text: object) -> str:
    """Return a text with every character that a reader could not see replaced."""
    return "".join(one if one in KEPT or unicodedata.category(one) not in INVISIBLE else "\ufffd"
                   for one in str(text))


def escaped(child: Child) -> str:
    """Return a child as HTML; None is nothing."""
    if child is None:
        return ""
    return child if isinstance(child, Markup) else escape(clean(child))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """Return an element.  `class_` is class, `stroke_width` is stroke-width; an attribute that is None is left out."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
                   for key, value in attributes.items() if value is not None)
    if name in EMPTY:
        return Markup(f"<{name}{told}/>")
    return Markup(f"<{name}{told}>{''.join(map(escaped, children))}</{name}>")


def _value(value: object) -> str:
    """Return an attribute's value; coordinates need no more than two digits."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else clean(value)


def joined(*children: Child) -> Markup:
    return Markup("".join(map(escaped, children)))
