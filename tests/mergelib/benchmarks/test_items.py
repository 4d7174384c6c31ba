from pathlib import Path

import pytest

from mergelib.benchmarks.items import items_table, open_benchmark
from mergelib.errors import InputError
from mergelib.sections.objectives import Objective

TEST_ONLY = """\
include: {folder}/zoo_ja.yaml
task: test_only
validation_split: null
"""


def _objective(data: Path, **changes: object) -> Objective:
    return Objective.model_validate(
        {"benchmark": str(data / "benchmarks" / "zoo_ja.yaml"), **changes}
    )


def test_validation_is_searched_and_test_is_fresh(data: Path) -> None:
    benchmark = open_benchmark(_objective(data), "objectives.0", seed=0)
    assert benchmark.name == "zoo_ja"
    assert benchmark.metric == "exact_match"
    assert benchmark.filter == "answer"
    assert benchmark.higher_is_better
    assert [item.item_id for item in benchmark.pool("search")][:2] == ["search/0", "search/1"]
    assert (len(benchmark.pool("search")), len(benchmark.pool("fresh"))) == (1000, 500)
    assert not {i.prompt for i in benchmark.pool("search")} & {
        i.prompt for i in benchmark.pool("fresh")
    }


def test_a_task_with_one_split_is_shared_out_by_the_seed(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "test_only.yaml"
    path.write_text(TEST_ONLY.format(folder=data / "benchmarks"), encoding="utf-8")
    objective = Objective(benchmark=str(path))
    first = open_benchmark(objective, "objectives.0", seed=0)
    ids = {pool: {i.item_id for i in first.pool(pool)} for pool in ("search", "fresh")}
    assert (len(ids["search"]), len(ids["fresh"])) == (250, 250)
    assert not ids["search"] & ids["fresh"]
    again = open_benchmark(objective, "objectives.0", seed=0)
    assert {i.item_id for i in again.pool("search")} == ids["search"]
    other = open_benchmark(objective, "objectives.0", seed=1)
    assert {i.item_id for i in other.pool("search")} != ids["search"]


def test_validation_and_test_of_one_name_are_shared_out(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "same.yaml"
    path.write_text(
        f"include: {data}/benchmarks/zoo_ja.yaml\ntask: same\nvalidation_split: fresh\n",
        encoding="utf-8",
    )
    benchmark = open_benchmark(Objective(benchmark=str(path)), "objectives.0", seed=0)
    ids = [{i.item_id for i in benchmark.pool(pool)} for pool in ("search", "fresh")]
    assert not ids[0] & ids[1]
    assert (len(ids[0]), len(ids[1])) == (250, 250)


def test_fresh_items_that_are_shown_as_examples_are_left_out(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "leaky.yaml"
    text = f"include: {data}/benchmarks/zoo_ja.yaml\ntask: leaky\nnum_fewshot: 2\n"
    path.write_text(text + "fewshot_split: fresh\n", encoding="utf-8")
    objective = Objective(benchmark=str(path), search_items=100, fresh_items=400)
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    fresh = benchmark.pool("fresh")
    assert 100 < len(fresh) < 400
    searched = "".join(item.prompt for item in benchmark.pool("search"))
    assert not any(item.question in searched for item in fresh)
    fixed = "fewshot_config: {sampler: first_n, split: fresh}\n"
    path.write_text(text + fixed, encoding="utf-8")
    objective = Objective(benchmark=str(path), search_items=100)
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    assert len(benchmark.pool("fresh")) == 498


def test_a_change_of_scoring_changes_the_digests(data: Path, tmp_path: Path) -> None:
    digests = []
    for name, extra in (
        ("plain", ""),
        ("lenient", "metric_list: [{metric: exact_match, ignore_case: true}]\n"),
    ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"include: {data}/benchmarks/zoo_ja.yaml\ntask: scored\n{extra}")
        objective = Objective(benchmark=str(path), search_items=2, fresh_items=2)
        benchmark = open_benchmark(objective, "objectives.0", seed=0)
        digests.append([item.digest for item in benchmark.items])
    assert not set(digests[0]) & set(digests[1])


def test_a_cap_keeps_a_random_part_in_the_order_of_the_documents(data: Path) -> None:
    objective = _objective(data, search_items=30, fresh_items=20)
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    numbers = [int(item.item_id.split("/")[1]) for item in benchmark.pool("search")]
    assert numbers == sorted(numbers)
    assert len(numbers) == 30
    assert numbers != list(range(30))


def test_a_digest_is_of_what_is_asked_and_what_is_right(data: Path) -> None:
    plain = open_benchmark(_objective(data, search_items=5, fresh_items=5), "objectives.0", seed=0)
    again = open_benchmark(_objective(data, search_items=5, fresh_items=5), "objectives.0", seed=0)
    assert [i.digest for i in plain.items] == [i.digest for i in again.items]
    assert len({i.digest for i in plain.items}) == 10


def test_the_table_has_a_row_for_each_item(data: Path) -> None:
    choice = _objective(data, search_items=3, fresh_items=2)
    path = str(data / "benchmarks" / "zoo_de_choice.yaml")
    benchmarks = [
        open_benchmark(choice, "objectives.0", seed=0),
        open_benchmark(choice.model_copy(update={"benchmark": path}), "objectives.1", seed=0),
    ]
    rows = items_table(benchmarks).to_pylist()
    assert [row["split"] for row in rows] == 2 * (3 * ["search"] + 2 * ["fresh"])
    assert rows[0]["choices"] is None
    assert rows[0]["target"].isdigit()
    assert rows[-1]["target"] in rows[-1]["choices"]
    assert len(rows[-1]["choices"]) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "exact_mach"}, "objectives.0.metric: 'exact_mach' is not a metric of the task"),
        ({"filter": "none"}, "objectives.0.filter: 'none' is not a filter of the task"),
        ({"search_items": 2000}, "objectives.0.search_items: 2000, but"),
        ({"benchmark": "no/such.yaml"}, "objectives.0.benchmark: 'no/such.yaml': no such file"),
    ],
)
def test_what_is_not_there_is_named(data: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        open_benchmark(_objective(data, **changes), "objectives.0", seed=0)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_broken_task_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("task: broken\ndataset_path: json\noutput_type: nonsense\n", encoding="utf-8")
    with pytest.raises(InputError, match="lm-eval cannot load this task") as caught:
        open_benchmark(Objective(benchmark=str(path)), "objectives.0", seed=0)
    assert "\n" not in str(caught.value)
