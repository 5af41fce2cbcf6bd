"""Pictures of memory over time: who has how many frames in which states, and what the arena takes.  Pure."""

from collections.abc import Mapping, Sequence

from hypervisor.toolstack.reporting.charts import Axis, Layer, Line, Lines, Point, Rule, Stack, key_of, thinned
from hypervisor.toolstack.reporting.palette import BLANK, CROSSES, DOTS, GREY, SOLID, STRIPES, number_of
from hypervisor.toolstack.reporting.told import Holdings, MapSample
from hypervisor.toolstack.reporting.words import STATES, TMEM
from shm.abi import PAGE_SIZE

MIB = 1 << 20
MOST_OWNERS = 7                  # that are told apart; the smallest of more are drawn as one
TEXTURES = {"S": SOLID, "P": CROSSES, "V": STRIPES, "U": DOTS, "other": BLANK,
            "persistent": SOLID, "ephemeral": STRIPES, "spare": DOTS}
STATE_NUMBERS = {"S": 0, "P": 3, "V": 2, "U": 5, "other": 7, "persistent": 1, "ephemeral": 4, "spare": GREY}
SECONDS = Axis("seconds since the work began")
STORE = "tmem pool"
Row = tuple[float, Holdings]     # at, what was held


def held_charts(key: str, title: str, rows: Sequence[Row], budget: int) -> list[Stack]:
    """Return the frames by owner and state; and all owners' by state alone, if there is more than one state.

    `budget` is in bytes.
    """
    rows = thinned(rows)
    places = tuple(at for at, _ in rows)
    x, y = SECONDS, Axis("frames, MiB")
    rule = Rule(budget / MIB, f"budget {budget / MIB:,.1f} MiB")
    every = "a sample a second at most"
    found = [
        Stack(key_of("frames", key), f"{title}: frames by owner and state", x, y, places, tuple(_by_owner(rows)), rule,
              f"Colour says whose frames they are, the pattern what may be done with them. Above the areas, up to the "
              f"budget: frames that nobody has; {every}."),
        Stack(key_of("states", key), f"{title}: what could be had without writing anything", x, y, places,
              tuple(_by_state(rows)), rule,
              f"The same frames, all guests together. Solid areas must be kept; whoever takes them has to write them "
              f"to a disk first. Patterned ones can be had for nothing, potentially volatile ones as long as nobody "
              f"has written to them; {every}."),
    ]
    return found if len(found[1].layers) > 1 else found[:1]


def owners_in(rows: Sequence[Row]) -> list[str]:
    """Return the guests that ever had frames, by name; of many only those that had most."""
    total: dict[str, int] = {}
    for _, held in rows:
        for name, states in held.guests.items():
            total[name] = total.get(name, 0) + sum(states.values())
    had = [name for name, frames in total.items() if frames]
    if len(had) > MOST_OWNERS:
        had = sorted(had, key=lambda name: (-total[name], name))[:MOST_OWNERS - 1]
    return sorted(had)


def _by_owner(rows: Sequence[Row]) -> list[Layer]:
    shown = owners_in(rows)
    rest = {name for _, held in rows for name, states in held.guests.items() if any(states.values())} - set(shown)
    layers = []
    for number, names in enumerate([[name] for name in shown] + ([sorted(rest)] if rest else [])):
        said = names[0] if len(names) == 1 else f"{len(names)} others"
        layers += [Layer(said, STATES[state], number, TEXTURES[state], values) for state in STATES
                   if any(values := _guests_frames(rows, names, state))]
    return layers + _tmem(rows, {part: GREY for part in TMEM}, one_owner=True)


def _by_state(rows: Sequence[Row]) -> list[Layer]:
    everybody = sorted({name for _, held in rows for name in held.guests})
    layers = {state: _guests_frames(rows, everybody, state) for state in STATES}
    kept = [Layer(_short(STATES[state]), STATES[state], STATE_NUMBERS[state], TEXTURES[state], values)
            for state, values in layers.items() if any(values)]
    tmem = _tmem(rows, STATE_NUMBERS, one_owner=False)
    return sorted([*kept, *tmem], key=lambda layer: layer.texture != SOLID)      # what must be kept lies below


def _tmem(rows: Sequence[Row], numbers: Mapping[str, int], one_owner: bool) -> list[Layer]:
    return [Layer(STORE if one_owner else _short(said), said, numbers[part], TEXTURES[part], values)
            for part, said in TMEM.items() if any(values := tuple(_mib(held.tmem.get(part, 0)) for _, held in rows))]


def _guests_frames(rows: Sequence[Row], names: Sequence[str], state: str) -> tuple[float, ...]:
    return tuple(_mib(sum(held.guests.get(name, {}).get(state, 0) for name in names)) for _, held in rows)


def _short(said: str) -> str:
    return said.partition(":")[0]


def _mib(frames: int) -> float:
    return frames * PAGE_SIZE / MIB


def arena_charts(samples: Mapping[str, Sequence[MapSample]], budget: int) -> list[Lines]:
    """Return the arena's memory in every phase, as psutil and as the kernel sees it; `budget` in bytes."""
    rule = Rule(budget / MIB, f"budget {budget / MIB:,.1f} MiB")
    by_source = {
        "psutil": ("by psutil (PSS)", {phase: [(s.at, s.arena_pss) for s in found]
                                       for phase, found in samples.items()},
                   "What the process list says of the arena's mappings, each page once. Pages that nobody maps at the "
                   "moment are not seen."),
        "kernel": ("by the kernel's count", {phase: [(s.at, s.kernel_bytes) for s in found if s.kernel_bytes]
                                             for phase, found in samples.items()},
                   "What the machine really gave to the arena's files.")}
    return [Lines(f"arena-{source}", f"Memory of the arena, {said}: baseline against measured", SECONDS,
                  Axis("MiB"), tuple(_line(n, phase, values) for n, (phase, values) in enumerate(found.items())), rule,
                  f"{note} Both runs do the same work: who takes longer goes on further to the right.")
            for source, (said, found, note) in by_source.items()]


def _line(place: int, phase: str, values: Sequence[tuple[float, int]]) -> Line:
    return Line(phase, number_of(phase, place), tuple(Point(at, value / MIB) for at, value in values))
