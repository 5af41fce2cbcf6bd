"""The bar of a series: how far, what is at work, how long yet."""

import io

import pytest
from rich.console import Console

from hypervisor.toolstack.compare.progress import SeriesBar, SeriesProgress, rest_seconds, rest_words


@pytest.mark.parametrize(("took", "left", "rest"), [
    ([], 5, None), ([2.0], None, None), ([2.0, 4.0], 5, 15.0), ([2.0], 0, 0.0)])
def test_the_rest_is_what_runs_took_for_each_that_is_left(took, left, rest):
    assert rest_seconds(took, left) == rest


@pytest.mark.parametrize(("seconds", "words"), [
    (None, ""), (0.2, "about 1 s left"), (42.4, "about 42 s left"), (600, "about 10 min left"),
    (9000, "about 2.5 h left")])
def test_the_rest_in_words(seconds, words):
    assert rest_words(seconds) == words


def test_what_was_known_takes_no_time():
    progress = SeriesProgress(total=3)
    progress.known("a")
    assert (progress.done, progress.took, progress.rest) == (1, [], None)
    progress.begins("b")
    progress.ends()
    assert progress.done == 2
    assert progress.rest == progress.took[0]


def test_a_bar_says_how_far_it_is():
    stream = io.StringIO()
    bar = SeriesBar(Console(file=stream, force_terminal=True, width=100), total=3)
    bar.begins("swap overcommit 2 seed 1")
    bar.ends()
    bar.begins("cmm2 overcommit 2 seed 1")
    [task] = bar._bars.tasks
    assert task.description == "1 of 3 runs"
    assert task.fields["note"].startswith("cmm2 overcommit 2 seed 1; about ")
    bar.sample(None, {"a": 1000, "b": 234})
    assert "1,234 operations" in task.fields["note"]
    bar.close()
    assert "runs" in stream.getvalue()


def test_silence_is_silent(capsys):
    progress = SeriesProgress(total=3)
    progress.begins("a")
    progress.sample(None, {"a": 1})
    progress.ends()
    progress.close()
    assert capsys.readouterr() == ("", "")
