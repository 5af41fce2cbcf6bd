"""Skewed choice: the same for the same seed, within range, and as skewed as asked for."""

from collections import Counter
from random import Random

import pytest

from guests.workloads.choice import Skewed


def choices(count: int, theta: float, seed: int, many: int = 3000) -> list[int]:
    skewed = Skewed(count, theta, Random(seed))
    return [skewed.choose() for _ in range(many)]


@pytest.mark.parametrize("theta", [0, 0.6, 0.99, 2])
@pytest.mark.parametrize("count", [1, 2, 100])
def test_choices_repeat_and_stay_in_range(count: int, theta: float) -> None:
    chosen = choices(count, theta, 5)
    assert chosen == choices(count, theta, 5)
    assert set(chosen) <= set(range(count))


def test_another_seed_likes_other_things() -> None:
    favourites = {Counter(choices(1000, 1.2, seed)).most_common(1)[0][0] for seed in range(8)}
    assert len(favourites) > 4


@pytest.mark.parametrize(("theta", "least", "most"), [(0, 0.08, 0.15), (0.99, 0.5, 0.8), (2, 0.9, 1.0)])
def test_the_top_tenth_gets_its_share(theta: float, least: float, most: float) -> None:
    counts = Counter(choices(100, theta, 3)).most_common(10)
    assert least < sum(n for _, n in counts) / 3000 < most


def test_the_edge_of_the_draw_is_in_range() -> None:
    class Edge(Random):
        def random(self) -> float:
            return 1 - 2 ** -53

    assert Skewed(7, 0.5, Edge(1)).choose() in range(7)
