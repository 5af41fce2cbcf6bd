"""The pictures of a comparison, as PNG files beside its other files.  matplotlib is imported here alone, and late.

    throughput.png      throughput against overcommit, a curve a scheme with its 95 % interval
    rss.png             the arena by psutil and by the kernel's count: baseline, and each scheme at each overcommit
    frames-KEY.png      frames by owner over time, stacked, and the budget: of each scheme where most is overcommitted

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart; markers and hatches say it too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.outcome import Outcome, Ran
from hypervisor.toolstack.compare.series import STORE
from hypervisor.toolstack.compare.table import disk_words
from shm.abi import PAGE_SIZE

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS, DASHES = "osD^vPX*", ("-", "--", "-.", ":")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
GREY = "#666666"
MIB = 1 << 20
DPI = 150
HOW = "no pictures: matplotlib is not installed; pip install 'memcommons[plot]'"


def drawn(found: Outcome, facts: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw everything into `folder`; return what there is to say of it: without matplotlib, how to have it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return [HOW]
    pictures = {"throughput": throughput(Figure, found, facts), "rss": rss(Figure, found, facts)}
    pictures |= {f"frames-{run.point.key}": frames(Figure, run) for run in most_overcommitted(found)}
    try:
        for name, picture in pictures.items():
            if picture:
                picture.savefig(folder / f"{name}.png", dpi=DPI)
    except OSError as error:
        return [f"--out: {folder}: {error.strerror}; pictures are missing there"]
    return []


def most_overcommitted(found: Outcome) -> list[Ran]:
    """Return of each scheme the run with the most overcommit that finished, of the first seed."""
    runs = []
    for scheme in found.schemes:
        finished = [run for run in found.runs if run.point.scheme == scheme and not run.failed and run.frames]
        runs += [max(finished, key=lambda run: (run.point.overcommit or 0.0, -run.point.seed))] if finished else []
    return runs


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return places at least `gap` apart, in the same order and as near as that to where they were."""
    order = sorted(range(len(places)), key=lambda n: places[n])
    blocks: list[list[float]] = []               # [sum of wanted bottoms, how many]: blocks that touch move as one
    for rank, n in enumerate(order):
        blocks.append([places[n] - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            wanted, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + wanted, blocks[-1][1] + count]
    bottoms = [wanted / count for wanted, count in blocks for _ in range(int(count))]
    moved = [0.0] * len(places)
    for rank, n in enumerate(order):
        moved[n] = bottoms[rank] + rank * gap
    return moved


def paler(colour: str, strength: float) -> str:
    """Return a colour (#rrggbb) mixed with white; opaque, so that no grid shines through."""
    parts = [int(colour[n:n + 2], 16) for n in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - part) * strength):02x}" for part in parts)


# -- throughput

Curve = Sequence[tuple[float, float, float, bool]]      # (overcommit, mean, half the interval or 0, all seeds finished)


def throughput(figure: Any, found: Outcome, facts: Mapping[str, Any]) -> Any:
    """Draw throughput against overcommit; None where nobody finished."""
    curves = {scheme: curve for scheme in found.schemes if (curve := _curve(found, scheme))}
    if not curves:
        return None
    picture = figure(figsize=(7.5, 4.6), layout="constrained")
    axes = picture.add_subplot()
    for n, curve in enumerate(curves.values()):
        _draw_curve(axes, n, curve, (n - (len(curves) - 1) / 2) * 0.008 * _width(found.overcommits))
    axes.axhline(1.0, color=GREY, linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="overcommit (RAM of all guests / budget)", ylabel="throughput, all memory granted = 1",
             xticks=list(found.overcommits), xticklabels=[f"{factor:g}" for factor in found.overcommits])
    axes.set_title(f"{facts['name']}: the same work under each scheme; mean of {len(found.seeds)} seeds and 95 % "
                   f"interval\n{facts['guests']} guests, {facts['faults']} faults, {disk_words(facts['disk'])}; "
                   f"hollow: not all seeds finished", fontsize=9, loc="left")
    _label_ends(axes, list(curves.items()), found.overcommits)
    _plain(axes)
    return picture


def _curve(found: Outcome, scheme: str) -> Curve:
    """Return the points of a scheme, where it finished with one seed at least."""
    cells = [found.cell(scheme, factor) for factor in found.overcommits]
    means = [(cell.overcommit, cell.figures["throughput"], not cell.failed) for cell in cells]
    return [(factor, mean.mean, mean.half or 0.0, whole) for factor, mean, whole in means if mean]


def _draw_curve(axes: Any, number: int, curve: Curve, aside: float) -> None:
    """Draw one scheme, a little aside so that intervals do not hide each other; hollow where seeds are missing."""
    factors, means, halves, whole = zip(*curve, strict=True)
    places = [factor + aside for factor in factors]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    down = [min(half, mean) for mean, half in zip(means, halves, strict=True)]      # nobody works less than not at all
    axes.errorbar(places, means, yerr=[down, halves], color=colour, linestyle=DASHES[number % len(DASHES)],
                  linewidth=1.6, capsize=3, elinewidth=1)
    for place, mean, full in zip(places, means, whole, strict=True):
        axes.plot([place], [mean], marker=marker, markersize=6, color=colour, zorder=3,
                  markerfacecolor=colour if full else "white")


def _width(factors: Sequence[float]) -> float:
    return (max(factors) - min(factors)) or 1.0


def _label_ends(axes: Any, curves: Sequence[tuple[str, Curve]], factors: Sequence[float]) -> None:
    """Write each scheme's name at the end of its curve, no two over each other."""
    low, high = axes.get_ylim()
    ends = [curve[-1] for _, curve in curves]
    places = spread([end[1] for end in ends], 0.055 * (high - low))
    right = max(factors) + 0.05 * _width(factors)
    for n, ((scheme, _), end, place) in enumerate(zip(curves, ends, places, strict=True)):
        axes.annotate(scheme, end[:2], (right, place), color=COLOURS[n % len(COLOURS)], fontsize=9, va="center",
                      arrowprops={"arrowstyle": "-", "color": COLOURS[n % len(COLOURS)], "linewidth": 0.5})
    axes.set_xlim(min(factors) - 0.04 * _width(factors), max(factors) + 0.25 * _width(factors))


# -- memory

def rss(figure: Any, found: Outcome, facts: Mapping[str, Any]) -> Any:
    """Draw the arena's memory of baseline and schemes, a panel an overcommit; None where nobody finished."""
    factors = [factor for factor in found.overcommits if found.cell(BASELINE, factor).finished]
    if not factors:
        return None
    picture = figure(figsize=(1.6 + 0.42 * len(factors) * (len(found.schemes) + 2), 4.4), layout="constrained")
    panels = picture.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    for axes, factor in zip(panels, factors, strict=True):
        _draw_memory(axes, found, factor, facts["ram_bytes"] / factor / MIB)
    panels[0].set_ylabel("memory of the arena, MiB, mean over time")
    picture.suptitle(f"{facts['name']}: dark: psutil (PSS); light: the kernel's count; line: budget", fontsize=9,
                     x=0.01, ha="left")
    return picture


def _draw_memory(axes: Any, found: Outcome, factor: float, budget: float) -> None:
    names = [BASELINE, *(scheme for scheme in found.schemes if found.cell(scheme, factor).finished)]
    for n, name in enumerate(names):
        figures = found.cell(name, factor).figures
        colour = GREY if name == BASELINE else COLOURS[found.schemes.index(name) % len(COLOURS)]
        for figure, aside, strength in (("rss_psutil_mib", -0.2, 1.0), ("rss_kernel_mib", 0.2, 0.45)):
            mean = figures[figure]
            if mean:
                axes.bar(n + aside, mean.mean, 0.38, yerr=mean.half, color=paler(colour, strength), capsize=2,
                         error_kw={"linewidth": 0.8})
    axes.axhline(budget, color="black", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_title(f"overcommit {factor:g}", fontsize=9)
    _plain(axes)


# -- frames over time

def frames(figure: Any, run: Ran) -> Any:
    """Draw the frames of each owner over time, stacked; None where fewer than two samples were taken."""
    if len(run.frames) < 2:
        return None
    owners = owners_of(run)
    times = [row["at"] for row in run.frames]
    layers = [[row["frames"].get(owner, 0) * PAGE_SIZE / MIB for row in run.frames] for owner in owners]
    picture = figure(figsize=(7.5, 4.2), layout="constrained")
    axes = picture.add_subplot()
    colours = [GREY if owner == STORE else COLOURS[n % len(COLOURS)] for n, owner in enumerate(owners)]
    areas = axes.stackplot(times, layers, colors=[paler(colour, 0.8) for colour in colours], edgecolor="white",
                           linewidth=0.6)
    for n, area in enumerate(areas):
        area.set_hatch(HATCHES[n % len(HATCHES)])
    _label_layers(axes, owners, layers, times, colours)
    budget = run.budget_frames * PAGE_SIZE / MIB
    axes.axhline(budget, color="black", linewidth=1, linestyle="--")
    axes.annotate(f"budget {budget:.1f} MiB", (times[0], budget), (3, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="seconds since the work began; a sample a second at most",
             ylabel="frames by owner, MiB", ylim=(0, budget * 1.12))
    axes.set_title(run.point.said, fontsize=9, loc="left")
    _plain(axes)
    return picture


def owners_of(run: Ran) -> list[str]:
    """Return who ever had frames, in the same order for every scheme; the store of tmem lies on top."""
    had = {owner for row in run.frames for owner, count in row["frames"].items() if count}
    return sorted(had, key=lambda owner: (owner == STORE, owner))


def _label_layers(axes: Any, owners: Sequence[str], layers: Sequence[Sequence[float]], times: Sequence[float],
                  colours: Sequence[str]) -> None:
    """Write each owner's name beside its layer's end."""
    middles, height = [], 0.0
    for layer in layers:
        middles.append(height + layer[-1] / 2)
        height += layer[-1]
    width = times[-1] - times[0]
    for owner, place, colour in zip(owners, spread(middles, 0.05 * height), colours, strict=True):
        axes.text(times[-1] + 0.015 * width, place, owner, color=colour, fontsize=9, va="center")
    axes.set_xlim(times[0], times[-1] + 0.18 * width)


def _plain(axes: Any) -> None:
    """Take away what says nothing."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
