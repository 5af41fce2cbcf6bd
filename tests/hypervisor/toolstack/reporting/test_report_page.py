"""The page around everything: nothing from a file is an element, nothing is fetched, verdicts need no colour."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.toolstack.reporting.markup import EMPTY, Markup, clean, escaped, joined, tag
from hypervisor.toolstack.reporting.page import (
    SHAPES,
    Page,
    Section,
    badge,
    html,
    items,
    paragraph,
    preformatted,
    table,
    tiles,
)


class Elements(HTMLParser):
    """Notes every element, and that each is closed where it was opened."""

    def __init__(self, text):
        super().__init__()
        self.found, self.attributes, self.open, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_startendtag(self, name, attributes):
        self.found.append(name)
        self.attributes += attributes

    def handle_starttag(self, name, attributes):
        assert name not in EMPTY
        self.handle_startendtag(name, attributes)
        self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.texts.append(data)


def page_with(text):
    return html(Page(text, paragraph(text), (Section(text, (table([text], [[text]], caption=text), items([text]),
                                                            preformatted(text), tiles((text, text)))),), ()), text)


@given(st.text())
def test_nothing_in_a_text_becomes_an_element(text):
    empty, full = Elements(page_with("")), Elements(page_with(text))
    assert [name for name in full.found if name not in ("caption", "a")] == [
        name for name in empty.found if name not in ("caption", "a")]
    assert full.open == []


def test_hostile_names_are_shown_as_they_are(hostile):
    page = Elements(page_with(hostile))
    assert "script" not in page.found and "b" in page.found      # a tile's own
    assert any('"><script>alert(1)</script>&<b>' in text for text in page.texts)


def test_what_cannot_be_seen_is_replaced():
    assert clean("a\x00b\u202ec\ud800d\ne") == "a\ufffdb\ufffdc\ufffdd\ne"
    page_with("\ud800").encode()


def test_attributes_are_escaped():
    element = tag("a", "x", href='"onload="y', title="<&>")
    assert Elements(element).attributes == [("href", '"onload="y'), ("title", "<&>")]


def test_only_markup_is_trusted():
    assert escaped("<b>") == "&lt;b&gt;"
    assert escaped(Markup("<b>")) == "<b>"
    assert joined("<", None, tag("b", "<")) == "&lt;<b>&lt;</b>"
    assert escaped("x" + tag("b")) == "x&lt;b&gt;&lt;/b&gt;", "a sum is no markup"


def test_numbers_in_attributes_are_short():
    assert tag("rect", x=1.23456, y=2.0, width=3) == '<rect x="1.23" y="2" width="3"/>'


def test_the_page_fetches_nothing():
    text = page_with("see http://example.org")
    assert "http" not in re.sub(r"see http://example\.org", "", text)
    assert not re.search(r"@import|src=|<link|<script|<img|url\((?!#)", text)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_verdict_is_a_word_and_a_shape_of_its_own(kind):
    said = badge(kind, "refuted")
    assert said.endswith("refuted</span>")
    assert len({shape for _, shape in SHAPES.values()}) == len(SHAPES)
    assert len({colour for colour, _ in SHAPES.values()}) == len(SHAPES)


def test_dark_and_paper_are_thought_of():
    text = page_with("x")
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert re.search(r"@media screen and \(prefers-color-scheme: dark\)", text), "paper is never dark"
