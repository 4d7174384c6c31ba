"""Banks of one search: how many abilities, and one table for all benchmarks."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

from mergelib.banks import (
    ability_table,
    bank_of,
    calibrated,
    check_dimensions,
    joined,
    mean_abilities,
    threshold_of,
)
from mergelib.errors import InputError
from mergelib.irt.bank import calibrate
from mergelib.irt.multidimensional import calibrate_dimensions
from mergelib.sections.fitness import Fitness

ITEMS = [f"q{n}" for n in range(60)]


def simulate(models=60, second=0.0, seed=0):
    """Half of the items lean on a second ability, by so many logits."""
    rng = np.random.default_rng(seed)
    alpha = np.column_stack([np.where(np.arange(60) < 30, 1.5, 1.5 - second), np.zeros(60)])
    alpha[30:, 1] = second
    p = expit(rng.standard_normal((models, 2)) @ alpha.T - rng.normal(0, 1, 60))
    return (rng.random(p.shape) < p).astype(float)


def fitness(dimensions, items=20, estimator="parent_irt"):
    content = {"estimator": estimator, "items": items, "calibration": {"dimensions": dimensions}}
    return Fitness.model_validate(content)


def test_one_ability_is_the_calibration_that_there_always_was():
    responses = simulate()
    found, expected = calibrated(responses, ITEMS, Fitness(), 0), calibrate(responses, ITEMS).bank
    assert Fitness().calibration.dimensions == 1
    assert found.to_table().equals(expected.to_table())


def test_so_many_abilities_as_are_asked_for():
    responses = simulate()
    found = calibrated(responses, ITEMS, fitness(3), 0)
    assert found.to_table().equals(calibrate_dimensions(responses, ITEMS, 3).bank.to_table())


def test_auto_takes_a_second_ability_only_where_it_helps_the_estimator():
    for estimator in ("parent_irt", "p_irt"):
        assert calibrated(simulate(), ITEMS, fitness("auto", 20, estimator), 0).dimensions == 1
    two = simulate(models=300, second=2.5)
    assert calibrated(two, ITEMS, fitness("auto", 40, "p_irt"), 0).dimensions > 1
    # parent_irt has a shift beside one ability, which does as well here
    assert calibrated(two, ITEMS, fitness("auto", 40), 0).dimensions == 1


@pytest.mark.parametrize(("models", "n"), [(3, 20), (60, 60)])
def test_auto_is_one_where_nothing_can_be_told(models, n):
    assert calibrated(simulate(models), ITEMS, fitness("auto", n), 0).dimensions == 1


def test_more_abilities_than_the_responses_carry_are_refused_by_the_keys_name():
    with pytest.raises(InputError, match=r"^fitness\.calibration\.dimensions: .*5 abilities"):
        calibrated(simulate(4), ITEMS, fitness(5), 0)
    with pytest.raises(InputError, match=r"^fitness\.calibration\.dimensions: 3 .* 3 models"):
        check_dimensions(3, models=3, items=60, name="x")
    for fine in (1, "auto", 2):
        check_dimensions(fine, models=3, items=60, name="x")


def test_the_search_file_refuses_too_few_merges_and_other_values():
    with pytest.raises(ValueError, match=r"fitness\.calibration\.dimensions: 4 .*models: 5"):
        Fitness.model_validate({"calibration": {"dimensions": 4, "models": 4}})
    for bad in (0, 6, "two"):
        with pytest.raises(ValueError, match="dimensions"):
            fitness(bad)
    Fitness.model_validate({"calibration": {"dimensions": 4, "models": 0, "source": "x.csv"}})


def test_banks_of_several_dimensions_share_a_table(tmp_path):
    responses = simulate()
    one, two = (
        calibrated(responses, ITEMS, fitness(1), 0),
        calibrated(responses, ITEMS, fitness(2), 0),
    )
    tables = [
        bank.to_table().add_column(0, "benchmark", [[name] * 60])
        for name, bank in (("a", one), ("b", two))
    ]
    alone = joined(tables[:1])
    assert alone.schema.field("discrimination").type == pa.float64()
    pq.write_table(joined(tables), tmp_path / "bank.parquet")
    read = pq.read_table(tmp_path / "bank.parquet")
    for name, bank in (("a", one), ("b", two)):
        found = bank_of(read, name)
        assert found.items == bank.items
        for column in ("discrimination", "difficulty", "discrimination_se", "difficulty_se"):
            np.testing.assert_array_equal(getattr(found, column), getattr(bank, column))
    assert threshold_of(read, "a") is None


def test_abilities_are_numbers_or_lists():
    responses = simulate()
    one, two = (
        mean_abilities(responses, calibrated(responses, ITEMS, fitness(d), 0)) for d in (1, 2)
    )
    models = [str(n) for n in range(60)]
    numbers = ability_table([("a", models, one)])
    np.testing.assert_array_equal(numbers["ability"].to_numpy(), one)
    both = ability_table([("a", models, one), ("b", models, two)])["ability"].to_pylist()
    np.testing.assert_array_equal(np.array(both[:60])[:, 0], one)
    np.testing.assert_array_equal(np.array(both[60:]), two)
