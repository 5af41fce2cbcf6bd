"""The page of claims: what was said in 2009, and what running it shows; each verdict a word, a shape and a colour."""

from collections import Counter

from hypervisor.schemes import BASELINE, offered
from hypervisor.toolstack.reporting.charts import Axis, Chart, Line, Lines, Point, key_of
from hypervisor.toolstack.reporting.markup import Child, Markup, joined, tag
from hypervisor.toolstack.reporting.page import (
    Page,
    Section,
    badge,
    figures,
    folded,
    paragraph,
    preformatted,
    table,
    tiles,
)
from hypervisor.toolstack.reporting.palette import numbers_of
from hypervisor.toolstack.reporting.repeat import explained
from hypervisor.toolstack.reporting.sources import ClaimsFound
from hypervisor.toolstack.reporting.told import Claim, Claims, Curves

# verdict -> (badge, what it says)
VERDICTS = {
    "supported": ("good", "what was measured meets the criterion"),
    "refuted": ("bad", "what was measured contradicts it"),
    "depends": ("between", "true under some conditions, not under others"),
    "not tested here": ("open", "nothing here can decide it"),
}


def claims_page(found: ClaimsFound) -> Page:
    """Return the page of the claims that were found."""
    told = found.told
    charts = {claim.key: [_chart(claim.key, n, curves) for n, curves in enumerate(claim.curves)]
              for claim in told.claims}
    sections = (
        Section("The verdicts", (_verdicts(told),)),
        explained([BASELINE, *offered()]),
        Section("Claim by claim", tuple(_claim(claim, charts[claim.key]) for claim in told.claims)),
        Section("The runs behind them", (_jobs(told),)),
        Section("How to repeat it", (preformatted(told.command), _machine(told))))
    title = "Said in July 2009, measured now"
    return Page(title, _lead(told), sections, tuple(chart for some in charts.values() for chart in some))


def _lead(told: Claims) -> Markup:
    counts = Counter[str](claim.verdict for claim in told.claims)
    text = ("In July 2009 Linux and Xen developers argued over two ways of sharing memory between virtual machines, "
            "tmem and CMM2. Each claim below was made by somebody on the mailing list, could not be settled there, and "
            "was put to the test here. What would support or refute it stands beside each figure.")
    hurry = (paragraph(badge("between", "a quick run"), " with less work than the figures need: take verdicts that "
             "rest on times with caution.") if told.quick else None)
    return joined(paragraph(text, class_="lead"), hurry, tiles(*(
        (joined(f"{counts[verdict]} ", badge(kind, verdict)), says) for verdict, (kind, says) in VERDICTS.items())))


def _badge(claim: Claim) -> Markup:
    return badge(VERDICTS[claim.verdict][0], claim.verdict)


def _verdicts(told: Claims) -> Markup:
    rows: list[list[Child]] = [
        [tag("a", claim.key, href=f"#{_anchor(claim)}"), joined(claim.says, tag("div", claim.who, class_="muted")),
         joined(claim.figure, tag("div", claim.why, class_="muted") if claim.why else None), _badge(claim)]
        for claim in told.claims]
    return table(["", "what was said, and by whom", "what was measured", "verdict"], rows, 9)


def _anchor(claim: Claim) -> str:
    return key_of("claim", claim.key)


def _claim(claim: Claim, charts: list[Chart]) -> Markup:
    """Return everything about one claim, and its curves."""
    facts: list[tuple[Child, Child]] = [
        ("said by", joined(claim.who, f" (message {claim.mail})" if claim.mail else None)), ("set up", claim.setup),
        ("criterion", claim.criterion), ("measured", claim.figure), ("verdict", _badge(claim)),
        *([("remark", claim.why)] if claim.why else []),
        ("run", claim.work or f"{len(claim.jobs)}"), ("repeat", tag("code", claim.command))]
    body = tag("tbody", *(tag("tr", tag("th", name), tag("td", said)) for name, said in facts))
    rows = tag("table", body, class_="facts")
    return tag("article", tag("h3", f"{claim.key}: {claim.says}"), tag("div", rows, class_="scroll"), figures(charts),
               id=_anchor(claim))


def _jobs(told: Claims) -> Markup:
    """Return every run and trial, for who wants to know what a verdict rests on."""
    rows: list[list[Child]] = [[job.said, key, f"{job.seconds:,.1f}" if job.seconds is not None else "-",
                                job.failed or "done"] for key, job in told.jobs.items()]
    return folded(f"All {len(rows)} of them", table(["run", "kept as", "seconds", "came to"], rows))


def _chart(key: str, n: int, curves: Curves) -> Chart:
    """Return curves as a claim tells them: points of (x, y, half of an interval or nothing)."""
    numbers = numbers_of([line.name for line in curves.lines])
    lines = tuple(Line(line.name, number, tuple(_point(*point) for point in line.points))
                  for number, line in zip(numbers, curves.lines, strict=True))
    halves = any(point.half for line in lines for point in line.points)
    return Lines(key_of("claim", key, n), curves.title, Axis(curves.x, from_zero=False), Axis(curves.y), lines,
                 note="Bars: the interval of each mean, half of it to either side." if halves else "")


def _point(x: float, y: float, half: float | None = None) -> Point:
    return Point(x, y, half)


def _machine(told: Claims) -> Markup:
    where = ", ".join(f"{name} {value}" for name, value in told.machine.items())
    return paragraph(f"Begun {told.began}; it took {told.took_s:,.0f} s. The machine: {where}. Counts of pages follow "
                     f"from the seeds; times follow from the machine and from what else it does.", class_="muted")
