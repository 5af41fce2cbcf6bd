"""How the page looks: one stylesheet, made of the palette.  Light, dark where the reader's system is, and paper."""

from collections.abc import Sequence

from hypervisor.toolstack.reporting.palette import DARK, GREY_DARK, GREY_LIGHT, LIGHT

_LIGHT = {"paper": "#ffffff", "ink": "#1b1f24", "muted": "#59616a", "grid": "#e1e4e8", "axis": "#8b939c",
          "card": "#f5f6f8", "edge": "#d5d9de"}
_DARK = {"paper": "#14171b", "ink": "#e8eaed", "muted": "#a7afb8", "grid": "#2b3138", "axis": "#6d7680",
         "card": "#1d2126", "edge": "#363d45"}

_RULES = """
* { box-sizing: border-box }
html { color-scheme: light dark; -webkit-text-size-adjust: 100% }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--edge) }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .3rem }
p, ul, dl { margin: .5rem 0; max-width: 46rem }
a { color: var(--c0) }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0 0; font-size: .92rem }
.lead { font-size: 1.06rem }
.muted, figcaption, footer, dd { color: var(--muted) }
footer { margin-top: 3rem; font-size: .85rem; border-top: 1px solid var(--edge); padding-top: .7rem }
dt { font-weight: 600; margin-top: .5rem } dd { margin: 0 }
code, pre { font: .87rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: 6px; padding: .7rem .9rem;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
details { margin: .7rem 0 } summary { cursor: pointer; font-weight: 600 }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.1rem 0 }
.tile { flex: 1 1 10rem; background: var(--card); border: 1px solid var(--edge); border-radius: 8px;
  padding: .7rem .9rem }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums }
.tile span { font-size: .85rem; color: var(--muted) }
figure { margin: 1.2rem 0 1.8rem; break-inside: avoid }
figure h3 { margin-top: 0 } figcaption { font-size: .88rem; max-width: 46rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem }
th, td { text-align: left; vertical-align: top; padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--edge) }
thead th { font-weight: 600; color: var(--muted); vertical-align: bottom }
th.n, td.n { text-align: right } td.n { white-space: nowrap }
.facts { width: 100%; max-width: 46rem } .facts th { width: 6.5rem }
.badge { display: inline-flex; align-items: center; gap: .38rem; font-weight: 600; white-space: nowrap }
.badge svg { width: 1.05rem; height: 1.05rem; flex: none }
.badge svg .shape { fill: var(--c) } .badge svg .sign { stroke: var(--paper); stroke-width: 2.2; fill: none }
.badge svg .ring { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-dasharray: 2.6 2.2 }
.chart { display: block; width: 100%; min-width: 34rem; height: auto; font-size: 12px;
  font-family: inherit; overflow: visible }
.chart text { fill: var(--ink) } .chart .mark { fill: var(--muted) } .chart .said { font-size: 12.5px }
.chart .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 3.5px; stroke-linejoin: round;
  fill: var(--ink) }
.chart .grid { stroke: var(--grid) } .chart .axis { stroke: var(--axis) }
.chart .rule { stroke: var(--ink); stroke-width: 1.3; stroke-dasharray: 6 4 }
.chart .leader { stroke: var(--axis); fill: none; stroke-width: .9; stroke-dasharray: 1 2.5 }
.chart .swatch { fill: var(--c) }
.chart .curve { stroke: var(--c); fill: none; stroke-width: 2; stroke-linejoin: round }
.chart .interval { stroke: var(--c); fill: none; stroke-width: 1.1 }
.chart .marker { fill: var(--c); stroke: var(--c); stroke-width: 1.5 } .chart .hollow { fill: var(--paper) }
.chart .area { stroke: var(--paper); stroke-width: .8 } .chart .area:not([fill]) { fill: var(--c) }
.chart .ground { fill: var(--paper) } .chart .wash { fill: var(--c); fill-opacity: .22 }
.chart .stroke { stroke: var(--c); fill: none; stroke-width: 1.9 } .chart .dot { fill: var(--c) }
"""

_PRINT = """
body { max-width: none; padding: 0; font-size: 10.5pt } nav { display: none }
h2, h3 { break-after: avoid } tr, .tile { break-inside: avoid } .chart { min-width: 0; width: 85% }
.scroll { overflow: visible } table { font-size: 8.5pt } td.n { white-space: normal } th, td { padding-right: .5rem }
* { print-color-adjust: exact; -webkit-print-color-adjust: exact }
details::details-content { content-visibility: visible; height: auto }
"""


def _variables(names: dict[str, str], colours: Sequence[str], grey: str) -> str:
    told = names | {f"c{n}": colour for n, colour in enumerate(colours)} | {"cg": grey}
    return ":root { " + "; ".join(f"--{name}: {value}" for name, value in told.items()) + " }"


def stylesheet() -> str:
    """Return the whole of it."""
    light, dark = _variables(_LIGHT, LIGHT, GREY_LIGHT), _variables(_DARK, DARK, GREY_DARK)
    classes = " ".join(f".{name} {{ --c: var(--{name}) }}" for name in [*(f"c{n}" for n in range(len(LIGHT))), "cg"])
    return "\n".join([light, f"@media screen and (prefers-color-scheme: dark) {{ {dark} }}", classes, _RULES.strip(),
                      f"@media print {{ {_PRINT.strip()} }}", ""])
