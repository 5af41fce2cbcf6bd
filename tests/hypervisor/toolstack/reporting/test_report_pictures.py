"""Pictures of the page: stacking, what tells one from another, and that drawings are well-formed and in their place."""

import re
from itertools import combinations, pairwise
from operator import mul
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.schemes import BASELINE, offered
from hypervisor.toolstack.reporting.charts import (
    Axis,
    Layer,
    Line,
    Lines,
    Part,
    Point,
    Row,
    Rows,
    Rule,
    Stack,
    is_drawable,
    key_of,
    stacked,
    thinned,
)
from hypervisor.toolstack.reporting.frame import WIDTH
from hypervisor.toolstack.reporting.palette import (
    CROSSES,
    DARK,
    DOTS,
    GREY,
    LIGHT,
    SOLID,
    STRIPES,
    colour,
    dash,
    marker,
    number_of,
    numbers_of,
)
from hypervisor.toolstack.reporting.style import stylesheet
from hypervisor.toolstack.reporting.svg import drawn

# What people without one kind of cone see, in linear light (Machado, Oliveira and Fernandes 2009, severity 1).
BLIND = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900))}


def linear(hexadecimal):
    parts = [int(hexadecimal[n:n + 2], 16) / 255 for n in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def lightness(rgb):
    light = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]
    return 116 * max(light, 0.0) ** (1 / 3) - 16


def seen(hexadecimal, kind):
    mixed = [sum(map(mul, row, linear(hexadecimal))) for row in BLIND[kind]]
    return [min(max(part, 0.0), 1.0) for part in mixed]


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("kind", BLIND)
def test_schemes_that_are_often_beside_each_other_differ_for_the_colour_blind(colours, kind):
    numbers = [number_of(name) for name in ("swap", "tmem", "cmm2", "cmm2+tmem")]
    for one, other in combinations(numbers, 2):
        a, b = seen(colours[one], kind), seen(colours[other], kind)
        apart = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5
        assert apart > 0.1 or abs(lightness(a) - lightness(b)) > 15, (one, other)


def contrast(one, other):
    a, b = ([0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in [linear(one), linear(other)]])
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


@pytest.mark.parametrize(("colours", "paper"), [(LIGHT, "#ffffff"), (DARK, "#14171b")], ids=["light", "dark"])
def test_every_colour_can_be_seen_on_its_ground(colours, paper):
    assert min(contrast(one, paper) for one in colours) > 2.0


def test_no_scheme_looks_like_another_without_its_colour_too():
    numbers = [number_of(name) for name in offered()]
    assert len(set(numbers)) == len(numbers)
    assert number_of(BASELINE) == GREY
    assert len({(marker(n), dash(n)) for n in numbers}) == len(numbers)


def test_more_curves_than_colours_differ_all_the_same():
    looks = [(colour(n), marker(n), dash(n)) for n in range(3 * len(LIGHT))]
    assert len(set(looks)) == len(looks)


def test_names_that_are_drawn_together_have_numbers_of_their_own():
    names = ["guests left alone", "swap", "x", "tmem", "baseline", "swap", "y"]
    numbers = numbers_of(names)
    assert len(set(numbers)) == len(names)
    assert (numbers[1], numbers[3], numbers[4]) == (number_of("swap"), number_of("tmem"), GREY)
    assert len(set(numbers_of([f"line {n}" for n in range(40)]))) == 40


# -- stacking

LAYERS = st.integers(1, 5).flatmap(lambda n: st.lists(
    st.lists(st.floats(0, 1e9), min_size=n, max_size=n).map(tuple), min_size=1, max_size=6))


@given(LAYERS)
def test_each_area_lies_on_the_one_below(columns):
    edges = stacked([Layer("a", "p", 0, SOLID, values) for values in columns])
    assert edges[0][0] == (0.0,) * len(columns[0])
    for (_, above), (below, _) in pairwise(edges):
        assert above == below
    assert list(edges[-1][1]) == pytest.approx([sum(column) for column in zip(*columns, strict=True)])


@given(st.lists(st.integers(), max_size=50), st.integers(2, 20))
def test_thinning_keeps_both_ends_and_the_order(values, most):
    kept = thinned(values, most)
    assert len(kept) <= max(most, 0) or kept == values
    assert kept[:1] == values[:1] and kept[-1:] == values[-1:]
    assert thinned(list(range(len(values))), most) == sorted(set(thinned(list(range(len(values))), most)))


# -- drawing

def lines(hostile="swap"):
    return Lines("speed", f"speed {hostile}", Axis(f"overcommit {hostile}", from_zero=False), Axis("throughput"), (
        Line(hostile, 1, (Point(1, 0.9, 0.1), Point(2, 0.4, 0.5, whole=False))), Line("cmm2", 2, (Point(1, 1.0),))),
        Rule(1.0, f"all granted {hostile}"), "a note")


def stack(hostile="bank"):
    layers = (Layer(hostile, "stable", 0, SOLID, (1.0, 2.0, 3.0)), Layer(hostile, "volatile", 0, STRIPES, (3, 2, 1)),
              Layer("scan", "volatile", 1, DOTS, (1.0, 1.0, 0.0)), Layer("gone", "unused", 2, CROSSES, (0, 0, 0)))
    return Stack("frames", f"frames {hostile}", Axis("s"), Axis("MiB"), (0.0, 1.0, 2.0), layers, Rule(8.0, "budget"))


def rows(hostile="baseline"):
    return Rows("io", f"io {hostile}", Axis("pages"), (
        Row(hostile, (Part("read", 100.0, 6), Part(f"spared {hostile}", 50.0, 0, STRIPES)), "150"),
        Row("nothing", (Part("read", 0.0, 6),), hostile)))


CHARTS = [lines, stack, rows]


@pytest.mark.parametrize("make", CHARTS)
def test_a_picture_is_well_formed_whatever_its_names_are(make, hostile):
    picture = drawn(make(hostile))
    tree = ElementTree.fromstring(picture)
    names = {element.tag for element in tree.iter()}
    assert names <= {"svg", "g", "title", "text", "line", "rect", "circle", "polyline", "polygon", "path", "defs",
                     "pattern"}
    assert "<script" not in picture and "\x00" not in picture and "\u202e" not in picture
    assert "alert(1)" in "".join(tree.itertext())


@pytest.mark.parametrize("make", CHARTS)
def test_everything_lies_in_the_picture(make):
    tree = ElementTree.fromstring(drawn(make()))
    *_, width, height = map(float, tree.attrib["viewBox"].split())
    for element in tree.iter():
        for name, limit in (("x", width), ("x1", width), ("x2", width), ("cx", width),
                            ("y", height), ("y1", height), ("y2", height), ("cy", height)):
            assert 0 <= float(element.attrib.get(name, 0)) <= limit, element.attrib
        for place in element.attrib.get("points", "").split():
            x, y = map(float, place.split(","))
            assert 0 <= x <= width and 0 <= y <= height


@pytest.mark.parametrize("make", CHARTS)
def test_every_class_has_a_style_and_every_fill_is_there(make):
    picture = drawn(make())
    tree, style = ElementTree.fromstring(picture), stylesheet()
    used = {word for element in tree.iter() for word in element.attrib.get("class", "").split()}
    plain = {"name"}                                     # nothing but the colour of the page's own words
    assert [word for word in used - plain if not re.search(rf"\.{word}\b", style)] == []
    ids = {element.attrib["id"] for element in tree.iter() if "id" in element.attrib}
    filled = set(re.findall(r"url\(#([^)]+)\)", picture))
    assert filled <= ids


def test_both_axes_say_what_they_are():
    said = [element.text for element in ElementTree.fromstring(drawn(lines())).iter("text")]
    assert {"overcommit swap", "throughput", "swap", "cmm2", "all granted swap"} <= set(said)


def test_a_mean_of_missing_seeds_is_hollow():
    assert drawn(lines()).count("marker hollow") == 1


def test_an_interval_never_goes_below_nothing():
    tree = ElementTree.fromstring(drawn(lines()))
    bottom = max(float(line.attrib["y1"]) for line in tree.iter("line") if line.attrib["class"] == "axis")
    ends = [float(y) for path in tree.iter("path") for y in re.findall(r"[V ](\d+\.\d)", path.attrib["d"])]
    assert ends and max(ends) <= bottom + 0.1


@pytest.mark.parametrize(("half", "ends"), [(0.2, 2), (50.0, 0)])
def test_an_interval_that_leaves_the_picture_has_no_end_there(half, ends):
    """Else a scheme with few seeds would press all curves to the ground."""
    chart = Lines("wide", "wide", Axis("x"), Axis("y"), (Line("a", 0, (Point(1, 1.0, half), Point(2, 1.0))),))
    [path] = ElementTree.fromstring(drawn(chart)).iter("path")
    assert path.attrib["d"].count("h6") == ends


def test_names_do_not_lie_over_each_other():
    many = Lines("many", "many", Axis("x"), Axis("y"), tuple(
        Line(f"line {n}", n, (Point(0, 1.0), Point(1, 1.0 + n / 1000))) for n in range(9)))
    tree = ElementTree.fromstring(drawn(many))
    places = sorted(float(text.attrib["y"]) for text in tree.iter("text") if "name" in text.attrib.get("class", ""))
    assert len(places) == 9
    assert min(b - a for a, b in pairwise(places)) >= 14
    assert all(float(text.attrib["x"]) < WIDTH for text in tree.iter("text"))


def test_nothing_to_see_is_no_picture():
    assert [is_drawable(make()) for make in CHARTS] == [True] * 3
    assert not is_drawable(Lines("a", "a", Axis("x"), Axis("y"), (Line("a", 0, ()),)))
    assert not is_drawable(Stack("a", "a", Axis("x"), Axis("y"), (0.0,), (Layer("a", "p", 0, SOLID, (1.0,)),)))
    assert not is_drawable(Rows("a", "a", Axis("x"), (Row("a", (Part("p", 0.0, 0),), ""),)))


@pytest.mark.parametrize("words", ["../../etc/passwd", "a b<>\"'", "ü\u202e", "", "x" * 500])
def test_a_key_names_a_file_and_nothing_else(words):
    assert re.fullmatch(r"frames-[A-Za-z0-9+_-]{0,73}", key_of("frames", words))
