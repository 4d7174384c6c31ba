"""Faults in what a search file says of spaces, races, stop rules, weights and constraints."""

import jsonschema
import pytest
import yaml

from mergelib.search import Search, parse_search
from mergelib.search_file import load_search
from tests.mergelib.test_search import faults, put


@pytest.mark.parametrize(
    ("path", "value", "start", "contains"),
    [
        # Spaces
        ("merge.method", 3, "merge.method: 3: must be a merge method's name", "or a list"),
        ("merge.method", [], "merge.method: at least 1 entry needed", ""),
        ("merge.method", ["ties", "tis"], "merge.method.1: 'tis' ", "did you mean 'ties'?"),
        ("merge.method", ["ties", "ties"], "merge.method: each method may be named once", ""),
        ("merge.preset", "sakana", "merge.preset: 'sakana': ", "'mergekit_evolve'"),
        ("merge.layers_per_group", 2, "merge.layers_per_group: give it or layer_groups", ""),
        ("merge.path", {}, "merge.path: layers are put ", "merge.method is task_arithmetic"),
        ("merge.path", {"scale": 0}, "merge.path: scale 0", "above 0"),
        # Benchmarks
        ("objectives.0.benchmark", 3, "objectives.0.benchmark: 3: must be a task's name", ""),
        (
            "objectives.0.benchmark",
            {"file": "a", "answer": "b"},
            "objectives.0.benchmark.question: is",
            "",
        ),
        (
            "objectives.0.benchmark",
            {"file": "a", "question": 0, "answer": 1},
            "objectives.0.benchmark.question: 0: ",
            "greater than or equal to 1",
        ),
        ("objectives.0.scorer", "rubric", "objectives.0.scorer: 'rubric': ", "pattern"),
        ("objectives.0.language_threshold", 0.6, "objectives.0", "goes with language"),
        ("objectives.0.multiturn", False, "objectives.0", "goes with chat_template"),
        # Races and stop rules
        ("fitness.racing", {"rungs": 1}, "fitness.racing.rungs: 1: ", "greater than or equal to 2"),
        ("fitness.racing", {"rung": 3}, "fitness.racing.rung: ", "did you mean 'rungs'?"),
        ("fitness.racing", "fast", "fitness.racing: 'fast': ", "must be true, false, or"),
        ("evolution.stop", {"hour": 1}, "evolution.stop.hour: ", "did you mean 'hours'?"),
        ("evolution.stop.plateau", 0, "evolution.stop.plateau: 0: ", "greater than or equal to 1"),
        ("evolution.stop.target", 61, "evolution.stop.target: 61: ", "less than or equal to 1"),
        ("evolution.descriptors", "scores", "evolution.descriptors: scores needs two bench", ""),
        # Constraints
        ("constraints", [{"benchmark": "b"}], "constraints.0: give either at_least or", ""),
        ("constraints", [{"at_least": 0.1}], "constraints.0.benchmark: is required", ""),
    ],
)
def test_each_fault_is_one_line_that_names_key_value_and_what_is_allowed(
    path, value, start, contains, search_content
):
    put(search_content, path, value)
    (line,) = faults(search_content)
    assert line.startswith(start)
    assert contains in line


def test_a_plain_file_fits_the_form(search_content):
    search_content["objectives"] = [
        {
            "benchmark": {"file": "a.tsv", "question": 1, "answer": 2, "choices": [3, 4]},
            "language_threshold": 0.99,
        },
        {"benchmark": {"file": "a.csv", "question": "q", "answer": "a", "choices": "c"}},
    ]
    search_content["evolution"]["algorithm"] = "nsga2"
    search = parse_search(search_content, "here")
    jsonschema.validate(search.model_dump(mode="json"), Search.model_json_schema())
    assert Search.model_validate_json(search.model_dump_json()) == search
    assert search.objectives[0].benchmark.choices == (3, 4)


def test_weights_are_for_all_objectives_or_for_none(search_content):
    search_content["objectives"].append({"benchmark": "other", "weight": 1})
    (line,) = faults(search_content)
    assert line.startswith("objectives: 1 of 2 have a weight")
    search_content["objectives"][0]["weight"] = 2
    assert not parse_search(search_content, "here").front
    for objective in search_content["objectives"]:
        del objective["weight"]
    (line,) = faults(search_content)
    assert "cma_es' takes one objective and the file has 2; give each a weight" in line


def test_a_limit_below_the_base_needs_a_base(search_content):
    search_content["constraints"] = [{"benchmark": "other", "below_base": 0.02}]
    assert parse_search(search_content, "here").constraints
    search_content["merge"] = {"method": "linear", "parameters": {"weight": {"low": 0, "high": 1}}}
    del search_content["base"]
    (line,) = faults(search_content)
    assert line.startswith("constraints: below_base needs a base")


def test_a_population_too_small_for_its_algorithm_is_refused(search_content):
    search_content["evolution"] |= {"algorithm": "de", "population": 3}
    (line,) = faults(search_content)
    assert line.startswith("evolution.population: 3 is too small for 'de'; give at least 4")


def test_a_path_has_no_parameters(search_content):
    search_content["merge"] = {"method": "passthrough", "path": {}, "components": ["mlp"]}
    (line,) = faults(search_content)
    assert line.startswith("merge.components: has no meaning beside merge.path")


def test_what_cannot_keep_a_limit_or_weigh_a_rung_is_refused(search_content):
    search_content["constraints"] = [{"benchmark": "other", "at_least": 0.2}]
    search_content["evolution"]["algorithm"] = "natural_niches"
    (line,) = faults(search_content)
    assert line.startswith("constraints: 'natural_niches' goes by single items")
    search_content["evolution"]["algorithm"] = "ga"
    search_content["fitness"] |= {"racing": True, "selection": "clustered", "estimator": "gp_irt"}
    (line,) = faults(search_content)
    assert line.startswith("fitness.racing: the weights of clustered items")
    search_content["fitness"]["estimator"] = "parent_irt"
    assert parse_search(search_content, "here").fitness.race


def test_a_constraints_path_is_read_from_the_files_folder(search_content, tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "en.yaml").touch()
    search_content["constraints"] = [{"benchmark": "tasks/en.yaml", "at_least": 0.1}]
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(search_content))
    (constraint,) = load_search(path).constraints
    assert constraint.benchmark == str(tmp_path / "tasks" / "en.yaml")


def test_the_schema_lets_a_preset_stand_for_the_method(search_content):
    search_content["merge"] = {"preset": "mergenetic_slerp"}
    jsonschema.validate(search_content, Search.model_json_schema())
    assert parse_search(search_content, "here").merge.methods == ("slerp",)


def test_population_and_generations_follow_the_algorithm_unless_given(search_content):
    search_content["evolution"] = {}
    by_default = parse_search(search_content, "here").evolution
    assert (by_default.algorithm, by_default.population, by_default.generations) == (
        "bayesian",
        4,
        16,
    )
    search_content["evolution"] = {"algorithm": "ga", "generations": 3}
    other = parse_search(search_content, "here").evolution
    assert (other.population, other.generations) == (12, 3)
