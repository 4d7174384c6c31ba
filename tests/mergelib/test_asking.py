"""What the first generation is asked."""

import pytest

from mergelib.asking import distinct
from tests.mergelib.test_space import space_of


@pytest.mark.parametrize(
    "density", [{"low": 0.2, "high": 0.9, "step": 0.1}, {"low": 0.2, "high": 0.8}]
)
def test_the_first_population_has_no_recipe_twice(density: dict[str, float]) -> None:
    weight = {"low": 0.0, "high": 1.5}
    space = space_of("dare_ties", {"weight": weight, "density": density})
    even = space.first()[0]
    read = space.encode(space.decode(even))
    # The same recipe, and yet not the same numbers.
    assert read != even
    assert distinct(space, [read, *space.first()]) == [read, *space.first()[1:]]
