import numpy as np
import pytest

from mergelib.errors import SearchError
from mergelib.goals import Goals, told
from mergelib.sections.objectives import Constraint

NAN = float("nan")


def test_one_objective_is_its_own_fitness():
    goals = Goals(("a",), 1, None, {})
    assert goals.fitness(np.array([[0.3], [NAN]]), {}).tolist()[0] == [0.3]
    assert np.isnan(goals.fitness(np.array([[NAN]]), {})).all()
    assert not goals.front


def test_weights_make_a_mean_and_no_weights_a_front():
    scores = np.array([[0.2, 0.6]])
    assert Goals(("a", "b"), 2, (0.75, 0.25), {}).fitness(scores, {}) == pytest.approx(0.3)
    front = Goals(("a", "b"), 2, None, {})
    assert front.front
    assert front.fitness(scores, {}).tolist() == [[0.2, 0.6]]


def test_what_breaks_a_constraint_ranks_below_all_that_keep_it_by_how_much_it_is_short():
    limits = {
        "b": Constraint(benchmark="b", below_base=0.1),
        "c": Constraint(benchmark="c", at_least=0.5),
    }
    goals = Goals(("a", "b", "c"), 1, None, limits)
    base = {"a": 0.1, "b": 0.4, "c": 0.2}
    assert goals.floors(base) == pytest.approx({"b": 0.3, "c": 0.5})
    scores = np.array([[0.0, 0.3, 0.5], [0.9, 0.2, 0.5], [0.9, 0.2, 0.3], [0.9, NAN, 0.9]])
    fitness = goals.fitness(scores, base)[:, 0]
    assert fitness[:3] == pytest.approx([0.0, -0.1, -0.3])
    assert np.isnan(fitness[3])
    assert goals.objectives == ("a",)


def test_on_a_front_a_broken_constraint_is_short_in_every_objective():
    limit = {"c": Constraint(benchmark="c", at_least=0.5)}
    goals = Goals(("a", "b", "c"), 2, None, limit)
    fitness = goals.fitness(np.array([[0.9, 0.9, 0.4], [0.0, 0.0, 0.5]]), {})
    assert fitness.tolist() == [pytest.approx([-0.1, -0.1]), [0.0, 0.0]]


def test_a_limit_below_a_base_that_was_not_scored_is_an_error_and_no_limit_of_nothing():
    goals = Goals(("a", "b"), 1, None, {"b": Constraint(benchmark="b", below_base=0.1)})
    with pytest.raises(SearchError, match="constraints: b: the base model has too few"):
        goals.fitness(np.array([[0.5, 0.5]]), {"b": NAN})


def test_a_fitness_below_zero_is_no_estimate():
    assert told(0.5) == "estimate 50.0 %"
    assert told(-0.05) == "breaks a constraint by 5.0 points"
