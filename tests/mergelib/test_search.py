import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from mergelib.errors import InputError
from mergelib.estimators import ESTIMATORS
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.irt.selection import SELECTIONS
from mergelib.merging.methods import merge_methods
from mergelib.search import Search, parse_search
from mergelib.search_file import load_search
from mergelib.sections.merge import Range


def put(content: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for part in parents:
        content = content[int(part)] if isinstance(content, list) else content.setdefault(part, {})
    content[int(last) if isinstance(content, list) else last] = value


def faults(content: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_search(content, "search.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("search.yaml: ") for line in lines)
    return [line.removeprefix("search.yaml: ") for line in lines]


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("data/searches/*.yaml")))
def test_the_shipped_searches_load(path):
    search = load_search(path)
    assert search.name == path.stem
    for model in (search.base, *search.endpoints):
        assert (Path(model) / "config.json").is_file()
    assert all(Path(objective.benchmark).is_file() for objective in search.objectives)


def test_a_search_survives_json(search_content):
    search = parse_search(search_content, "here")
    assert Search.model_validate_json(search.model_dump_json()) == search
    assert parse_search(search.model_dump(mode="json"), "here") == search


def test_ranges_and_fixed_values_keep_their_kind(search_content):
    search_content["merge"]["parameters"] |= {"density": 1, "normalize": True, "lambda": 0.5}
    parameters = parse_search(search_content, "here").merge.parameters
    assert parameters["weight"] == Range(low=0.0, high=1.5)
    assert parameters["density"] == 1
    assert parameters["normalize"] is True
    assert isinstance(parameters["lambda"], float)


WEIGHT = "merge.parameters.weight"


@pytest.mark.parametrize(
    ("path", "value", "start", "contains"),
    [
        # Keys
        ("evolutoin", {}, "evolutoin: ", "did you mean 'evolution'? Allowed: allow_test_sets,"),
        ("merge.layer_group", 2, "merge.layer_group: ", "did you mean 'layer_groups'?"),
        ("objectives.0.metrik", "m", "objectives.0.metrik: ", "did you mean 'metric'?"),
        ("fitness.calibration.model", 3, "fitness.calibration.model: ", "mean 'models'?"),
        # Names
        (
            "merge.method",
            "task_arithmatic",
            "merge.method: 'task_arithmatic' ",
            "'task_arithmetic'",
        ),
        ("fitness.estimator", "parent_itr", "fitness.estimator: 'parent_itr' ", "'parent_irt'?"),
        (
            "fitness.selection",
            "luck",
            "fitness.selection: 'luck' ",
            "Allowed: clustered, inform",
        ),
        ("evolution.algorithm", "cmaes", "evolution.algorithm: 'cmaes' ", "'cma_es'?"),
        ("merge.export_dtype", "int8", "merge.export_dtype: 'int8': ", "'bfloat16'"),
        # Numbers
        ("evolution.population", 0, "evolution.population: 0: ", "greater than or equal to 2"),
        ("evolution.population", "many", "evolution.population: 'many': ", "valid integer"),
        ("evolution.population", [8], "evolution.population: a list: ", "valid integer"),
        ("compute.batch", "fast", "compute.batch: 'fast': ", "'auto', or input should be a valid"),
        ("compute.batch", 0, "compute.batch: 0: ", "greater than or equal to 1"),
        ("fitness.calibration.share", 2, "fitness.calibration.share: 2: ", "less than or equal"),
        # Parameters
        (WEIGHT, {"low": 1, "high": 0}, f"{WEIGHT}: low 1 and high 0 ", "low below high"),
        (WEIGHT, {"low": 1, "high": 1}, f"{WEIGHT}: low 1 and high 1 ", "low below high"),
        (WEIGHT, {"low": math.nan, "high": 1}, f"{WEIGHT}: low nan ", "must be finite"),
        (WEIGHT, {"low": 0.0}, f"{WEIGHT}.high: is required", ""),
        (WEIGHT, {"low": "x", "high": 1}, f"{WEIGHT}.low: 'x': ", "valid number"),
        (WEIGHT, {"low": 0, "high": 1, "stop": 1}, f"{WEIGHT}.stop: ", "Allowed: high, low, step"),
        (WEIGHT, {"low": 0, "high": 1, "step": 0.3}, f"{WEIGHT}: step 0.3 ", "does not divide"),
        (WEIGHT, {"low": 0, "high": 1, "step": 2}, f"{WEIGHT}: step 2 ", "does not divide"),
        (WEIGHT, [0.0, 1.0], f"{WEIGHT}: a list: must be a range {{low: ..., high: ...}}", "value"),
        (WEIGHT, None, f"{WEIGHT}: nothing: must be a range", ""),
        (WEIGHT, 0.7, "merge.parameters: every parameter is held fixed", "{low: ..., high: ...}"),
        ("merge.parameters", {}, "merge.parameters: at least 1 entry needed, 0 given", ""),
        ("merge.parameters", "x", "merge.parameters: 'x': must be a mapping", ""),
        ("merge.parameters.density", 1.7, "merge.parameters.density: 1.7 ", "allowed: 0 to 1"),
        ("merge.parameters.wieght", 1.0, "merge.parameters.wieght: ", "did you mean 'weight'?"),
        ("merge.parameters.normalize", 1, "merge.parameters.normalize: 1 ", "true or false"),
        # Models and objectives
        ("base", None, "base: is required by task_arithmetic", ""),
        ("endpoints", ["one"], "endpoints: at least 2 entries needed, 1 given", ""),
        ("endpoints", ["one", "two", "one"], "endpoints: one is named twice", "may be named once"),
        ("endpoints", "one", "endpoints: 'one': must be a list", ""),
        ("endpoints", ["one", 2], "endpoints.1: 2: ", "valid string"),
        ("objectives", [], "objectives: at least 1 entry needed, 0 given", ""),
        ("objectives", ["b"], "objectives.0: 'b': must be a mapping of keys", ""),
        ("objectives.0", {}, "objectives.0.benchmark: is required", ""),
        ("merge", None, "merge: nothing: must be a mapping of keys", ""),
        ("merge.components", [""], "merge.components.0: '': ", "at least 1 character"),
        ("name", "a b", "name: 'a b': ", "pattern"),
        ("name", "../up", "name: '../up': ", "pattern"),
    ],
)
def test_each_fault_is_one_line_that_names_key_value_and_what_is_allowed(
    path, value, start, contains, search_content
):
    put(search_content, path, value)
    (line,) = faults(search_content)
    assert line.startswith(start)
    assert contains in line


@pytest.mark.parametrize(
    ("method", "parameters", "line"),
    [
        ("slerp", {"weight": {"low": -1, "high": 1}}, "'weight' is not a parameter of slerp"),
        ("slerp", {"t": {"low": 0, "high": 1.5}}, "merge.parameters.t: 1.5 is out of range"),
        ("slerp", {"t": {"low": -0.5, "high": 1}}, "merge.parameters.t: -0.5 is out of range"),
        ("ties", {"density": {"low": 0.1, "high": 1}}, "parameters.weight: is required by ties"),
        ("ties", {"weight": 1.0, "density": {"low": 0.5, "high": 1.7}}, "density: 1.7 is out of"),
        (
            "task_arithmetic",
            {"weight": 1.0, "density": {"low": 0.5, "high": 1}},
            "parameters.density: ",
        ),
        ("arcee_fusion", {"t": {"low": 0, "high": 1}}, "arcee_fusion takes no parameters"),
        ("model_stock", {"filter_wise": True}, "every parameter is held fixed"),
        (
            "della",
            {"weight": 1.0, "density": {"low": 0.5, "high": 1}},
            "parameters.density: 0.5 to 1 is out of range for della with epsilon 0.15",
        ),
    ],
)
def test_parameters_that_do_not_fit_the_method(method, parameters, line, search_content):
    search_content["merge"] |= {"method": method, "parameters": parameters}
    (fault,) = faults(search_content)
    assert line in fault
    assert fault.startswith("merge.parameters")


def test_three_endpoints_do_not_fit_slerp(search_content):
    search_content["merge"] |= {"method": "slerp", "parameters": {"t": {"low": 0, "high": 1}}}
    search_content["endpoints"] = ["one", "two", "three"]
    expected = "endpoints: slerp merges at most 2 models, 3 are named"
    assert faults(search_content) == [expected]


def test_slerp_and_linear_need_no_base(search_content):
    del search_content["base"]
    search_content["merge"] |= {"method": "slerp", "parameters": {"t": {"low": 0, "high": 1}}}
    assert parse_search(search_content, "here").base is None
    search_content["merge"] |= {"method": "linear", "parameters": {"weight": {"low": 0, "high": 1}}}
    assert parse_search(search_content, "here").base is None


def test_the_base_is_no_endpoint_where_differences_to_it_are_taken(search_content):
    search_content["base"] = search_content["endpoints"][0]
    (fault,) = faults(search_content)
    assert fault.startswith(f"endpoints: {search_content['base']} is the base")
    search_content["merge"] |= {"method": "slerp", "parameters": {"t": {"low": 0, "high": 1}}}
    parse_search(search_content, "here")


def test_several_objectives_need_an_algorithm_for_them(search_content):
    search_content["objectives"].append({"benchmark": "another"})
    (fault,) = faults(search_content)
    assert fault.startswith("evolution.algorithm: 'cma_es' takes one objective and the file has 2")
    assert "nsga2" in fault
    search_content["evolution"]["algorithm"] = "nsga2"
    assert len(parse_search(search_content, "here").objectives) == 2
    search_content["objectives"].append({"benchmark": "another"})
    assert faults(search_content) == [
        "objectives: another is named twice; give one of them another metric, filter or scorer"
    ]
    search_content["objectives"][-1]["metric"] = "acc_norm"
    assert len(parse_search(search_content, "here").objectives) == 3


def test_a_missing_part_is_required(search_content):
    del search_content["merge"], search_content["name"]
    assert sorted(faults(search_content)) == ["merge: is required", "name: is required"]


def test_several_faults_are_several_lines(search_content):
    search_content["objectives"][0]["metrik"] = "m"
    search_content["evolution"]["population"] = 1
    search_content["merge"]["parameters"]["weight"] = {"low": 0, "hgih": 1}
    assert [line.split(":")[0] for line in sorted(faults(search_content))] == [
        "evolution.population",
        f"{WEIGHT}.hgih",
        f"{WEIGHT}.high",
        "objectives.0.metrik",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [1, 2", "not YAML: "),
        ("- a\n- b\n", "a search file is a mapping of keys"),
        ("", "a search file is a mapping of keys"),
        ("just words", "a search file is a mapping of keys"),
    ],
)
def test_a_file_that_is_no_mapping(text, message, tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_search(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "nowhere.yaml"
    with pytest.raises(InputError) as caught:
        load_search(path)
    assert str(caught.value) == f"{path}: cannot be read: No such file or directory"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(InputError, match="cannot be read: .*utf-8"):
        load_search(path)


def test_settings_win_over_the_file(search_content, write_search):
    path = write_search(search_content)
    search = load_search(
        path,
        [
            "evolution.generations=20",
            "objectives.0.metric=exact_match",
            f"endpoints={yaml.safe_dump(list(reversed(search_content['endpoints'])))}",
            "merge.components=[self_attn, mlp]",
            "merge.method=ties",
            "merge.parameters.density={low: 0.25, high: 1}",
            "compute.batch=auto",
            "base=a=b",
        ],
    )
    assert search.evolution.generations == 20
    assert search.objectives[0].metric == "exact_match"
    assert search.endpoints == tuple(reversed(search_content["endpoints"]))
    assert search.merge.components == ("self_attn", "mlp")
    assert search.merge.parameters["density"] == Range(low=0.25, high=1)
    assert search.base == "a=b"
    assert load_search(path).evolution.generations == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evolution.generations", "--set evolution.generations: write key=value"),
        ("=3", "--set =3: write key=value"),
        (
            "objectives.1.metric=x",
            "--set objectives.1.metric=x: '1' is not an entry; allowed: 0 to 0",
        ),
        ("endpoints.x=a", "'x' is not an entry; allowed: 0 to 1"),
        ("endpoints.-1=a", "'-1' is not an entry; allowed: 0 to 1"),
        ("name.first=a", "--set name.first=a: 'name' holds a value, not further keys"),
        ("merge.components=[a", "--set merge.components=[a: '[a' is not YAML"),
        ("evolution.generation=3", "evolution.generation: 'generation' is not a key here"),
        ("evolution.generations=x", "evolution.generations: 'x': "),
    ],
)
def test_bad_settings_are_one_line(override, message, search_content, write_search):
    with pytest.raises(InputError) as caught:
        load_search(write_search(search_content), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_relative_paths_are_read_from_the_files_folder(search_content, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("searches", "models/base", "models/one", "home/two"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "task.yaml").touch()
    search_content |= {
        "base": "../models/base",
        "endpoints": ["../models/../models/one", "~/two", "owner/name"],
        "objectives": [{"benchmark": "../task.yaml"}, {"benchmark": "gsm8k"}],
    }
    search_content["evolution"]["algorithm"] = "nsga2"
    path = tmp_path / "searches" / "search.yaml"
    path.write_text(yaml.safe_dump(search_content))
    monkeypatch.chdir(tmp_path / "models")
    search = load_search(path)
    assert search.base == str(tmp_path / "models" / "base")
    assert search.endpoints == (
        str(tmp_path / "models" / "one"),
        str(tmp_path / "home" / "two"),
        "owner/name",
    )
    assert [o.benchmark for o in search.objectives] == [str(tmp_path / "task.yaml"), "gsm8k"]


def test_one_folder_by_two_ways_is_one_endpoint(search_content, tmp_path):
    (tmp_path / "one").mkdir()
    search_content["endpoints"] = ["one", "./one"]
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(search_content))
    with pytest.raises(InputError, match="one is named twice"):
        load_search(path)


def test_the_schema_lists_choices_and_describes_keys():
    schema = Search.model_json_schema()
    definitions = schema["$defs"]

    def choices(model: str, key: str) -> list[str]:
        return definitions[model]["properties"][key]["enum"]

    one, several = definitions["Merge"]["properties"]["method"]["anyOf"]
    assert one["enum"] == several["items"]["enum"] == sorted(merge_methods())
    assert choices("Fitness", "estimator") == sorted(ESTIMATORS)
    assert choices("Fitness", "selection") == sorted(SELECTIONS)
    assert choices("Evolution", "algorithm") == sorted(ALGORITHMS)
    assert "bfloat16" in choices("Merge", "export_dtype")
    assert schema["properties"]["endpoints"]["description"]
    assert all(definitions["Range"]["properties"][key]["description"] for key in ("low", "high"))
    assert {"name", "endpoints", "merge", "objectives"} == set(schema["required"])
    parameters = definitions["Merge"]["properties"]["parameters"]["additionalProperties"]
    assert {"$ref": "#/$defs/Range"} in next(iter(parameters.values()))
