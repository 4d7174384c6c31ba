import numpy as np
import pytest

from mergelib.evolution.population import places, traits_of


def test_places_find_each_genome_once_from_the_front():
    a, b, c = [0.1, 0.2], [0.3, 0.4], [0.5, 0.6]
    asked = [a, b, a]
    assert places(asked, [a, a, a]) == [0, 2, None]
    assert places(asked, [b, c, a]) == [1, None, 0]
    assert places([], [a]) == [None]


def test_traits_are_those_of_the_candidates_that_were_scored():
    genomes = [[0.1], [0.2], [0.3]]
    fitness = np.array([[1.0], [np.nan], [2.0]])
    traits = np.array([[0.0, np.nan], [5.0, 5.0], [1.0, 0.5]])
    np.testing.assert_array_equal(traits_of(genomes, fitness, traits), traits[[0, 2]])
    assert traits_of(genomes, fitness, None).shape == (2, 0)
    assert np.isnan(traits_of(genomes, fitness, None, width=2)).all()
    with pytest.raises(ValueError, match=r"traits of shape \(3, 2\), not \(3, 3\)"):
        traits_of(genomes, fitness, traits, width=3)
