"""The page around everything: title, lead, sections, tables, pictures with their captions, badges.  Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hypervisor.toolstack.reporting.charts import Chart, is_drawable
from hypervisor.toolstack.reporting.markup import Child, Markup, clean, joined, tag
from hypervisor.toolstack.reporting.style import stylesheet
from hypervisor.toolstack.reporting.svg import drawn


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    body: tuple[Child, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What one report says.  `charts` are those of its sections, for files beside it."""

    title: str
    lead: Markup
    sections: tuple[Section, ...]
    charts: tuple[Chart, ...]


def html(page: Page, made: str) -> str:
    """Return the page as text; `made` says by what and when."""
    head = tag("head", tag("meta", charset="utf-8"),
               tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
               tag("meta", name="color-scheme", content="light dark"), tag("title", page.title),
               tag("style", Markup(stylesheet())))
    anchors = [f"s{n}" for n in range(1, len(page.sections) + 1)]
    links = [tag("a", section.heading, href=f"#{anchor}")
             for anchor, section in zip(anchors, page.sections, strict=True)]
    sections = [tag("section", tag("h2", section.heading), *section.body, id=anchor)
                for anchor, section in zip(anchors, page.sections, strict=True)]
    body = tag("body", tag("header", tag("h1", page.title), page.lead, tag("nav", *links)),
               tag("main", *sections), tag("footer", made))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def figure(chart: Chart) -> Markup | None:
    """Return a picture with its title above and how it is read below; nothing where there is nothing to see."""
    if not is_drawable(chart):
        return None
    return tag("figure", tag("h3", chart.title), tag("div", drawn(chart), class_="scroll"),
               tag("figcaption", chart.note) if chart.note else None)


def figures(charts: Iterable[Chart]) -> Markup:
    return joined(*map(figure, charts))


def table(head: Sequence[Child], rows: Iterable[Sequence[Child]], figures_from: int = 1, caption: str = "") -> Markup:
    """Return a table; columns from number `figures_from` on hold figures, which stand at the right."""
    def line(name: str, cells: Sequence[Child]) -> Markup:
        return tag("tr", *(tag(name, cell, class_="n" if n >= figures_from else None) for n, cell in enumerate(cells)))
    return tag("div", tag("table", tag("caption", caption) if caption else None, tag("thead", line("th", head)),
                          tag("tbody", *(line("td", row) for row in rows))), class_="scroll")


def tiles(*told: tuple[Child, str]) -> Markup:
    """Return the few figures that are read first: (figure, what it is)."""
    return tag("div", *(tag("div", tag("b", value), tag("span", said), class_="tile") for value, said in told),
               class_="tiles")


def paragraph(*children: Child, class_: str | None = None) -> Markup:
    return tag("p", *children, class_=class_)


def items(lines: Iterable[Child]) -> Markup:
    return tag("ul", *(tag("li", line) for line in lines))


def folded(summary: Child, *children: Child) -> Markup:
    """Return what is there for whoever opens it."""
    return tag("details", tag("summary", summary), *children)


def preformatted(text: str) -> Markup:
    return tag("pre", text)


def definitions(pairs: Iterable[tuple[Child, Child]]) -> Markup:
    return tag("dl", *(joined(tag("dt", term), tag("dd", said)) for term, said in pairs))


# -- badges: a verdict is a word, a shape and a colour

_DIAMOND = "M10 0.5L19.5 10L10 19.5L0.5 10Z"
SHAPES: dict[str, tuple[str, Markup]] = {
    "good": ("c2", joined(tag("circle", cx=10, cy=10, r=9.5, class_="shape"),
                          tag("path", d="M5.5 10.5l3 3l6-7", class_="sign"))),
    "bad": ("c1", joined(tag("rect", x=1, y=1, width=18, height=18, class_="shape"),
                         tag("path", d="M6 6l8 8M14 6l-8 8", class_="sign"))),
    "between": ("c4", joined(tag("path", d=_DIAMOND, class_="shape"), tag("path", d="M6 10h8M10 6v8", class_="sign"))),
    "open": ("cg", tag("circle", cx=10, cy=10, r=8.5, class_="ring")),
}


def badge(kind: str, word: str) -> Markup:
    """Return a verdict; `kind` is one of SHAPES."""
    colour, shape = SHAPES[kind]
    return tag("span", tag("svg", shape, viewBox="0 0 20 20", aria_hidden="true"), word, class_=f"badge {colour}")


def one_line(text: str) -> str:
    return " ".join(clean(text).split())
