import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mergelib.benchmarks.chat import ChatTemplate, chat_template_of
from mergelib.benchmarks.items import items_table, open_benchmark
from mergelib.benchmarks.scoring import score
from mergelib.checkpoints import open_checkpoint
from mergelib.errors import InputError
from mergelib.merging.resident import ResidentModel
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


@pytest.mark.parametrize("members", ["[ja, de]", "[ja, {task: de, num_fewshot: 0}]"])
def test_a_group_is_one_benchmark_with_the_items_of_all_its_tasks(
    data: Path, tmp_path: Path, members: str
) -> None:
    for name in ("ja", "de"):
        text = f"include: {data}/benchmarks/zoo_{name}.yaml\ntask: {name}\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    path = tmp_path / "both.yaml"
    path.write_text(f"group: both\ntask: {members}\n", encoding="utf-8")
    objective = Objective(benchmark=str(path), search_items=100, fresh_items=60)
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    assert benchmark.name == "both"
    assert (len(benchmark.pool("search")), len(benchmark.pool("fresh"))) == (100, 60)
    by_task = {name: [i for i in benchmark.items if i.item_id.startswith(name)] for name in "jd"}
    assert all(len(own) > 50 for own in by_task.values())
    japanese, german = by_task["j"][0], by_task["d"][0]
    assert japanese.item_id.startswith("ja/search/")
    assert (benchmark.task_of(japanese).task_name, benchmark.task_of(german).task_name) == (
        "ja",
        "de",
    )
    raw = [[[f"#### {item.target}"]] for item in (german, japanese, german)]
    raw[2] = [["#### 100"]]
    responses = score(benchmark, [german, japanese, german], raw)
    assert [r.response for r in responses] == [1, 1, 0]


def test_tasks_of_a_group_must_share_the_metric(data: Path, tmp_path: Path) -> None:
    for name, of in (("written", "zoo_ja"), ("weighed", "zoo_ja_choice")):
        text = f"include: {data}/benchmarks/{of}.yaml\ntask: {name}\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    path = tmp_path / "both.yaml"
    path.write_text("group: both\ntask: [written, weighed]\n", encoding="utf-8")
    with pytest.raises(InputError, match="its tasks share no metric"):
        open_benchmark(Objective(benchmark=str(path)), "objectives.0", seed=0)


@pytest.mark.parametrize("name", ["text", "choice_5"])
@pytest.mark.parametrize("multiturn", [True, False])
@pytest.mark.parametrize("system_prompt", [None, "Answer with one word."])
def test_chat_prompts_are_lm_evals(
    open_model: Callable[..., ResidentModel],
    tasks: Path,
    name: str,
    multiturn: bool,
    system_prompt: str | None,
) -> None:
    resident = open_model("llama")
    path = str(tasks / f"{name}.yaml")
    model = HFLM(pretrained=resident.model, tokenizer=resident.tokenizer, batch_size=5)
    task = TaskManager(include_defaults=False).load([path])["tasks"][name]
    task.set_fewshot_seed(1234)
    task.build_all_requests(
        rank=0,
        world_size=1,
        system_instruction=system_prompt,
        apply_chat_template=True,
        fewshot_as_multiturn=multiturn,
        chat_template=model.apply_chat_template,
        tokenizer_name=model.chat_template(True),
    )
    objective = Objective(
        benchmark=path, chat_template=True, multiturn=multiturn, system_prompt=system_prompt
    )
    benchmark = open_benchmark(
        objective, "objectives.0", 0, lambda _: ChatTemplate(resident.tokenizer)
    )
    theirs: dict[str, list[object]] = {}
    for instance in task.instances:
        theirs.setdefault(f"test/{instance.doc_id}", []).append(instance.args)
    assert benchmark.items
    for item in benchmark.items:
        assert [instance.args for instance in item.instances] == theirs[item.item_id]
        assert item.prompt.count("[user]") == (int(multiturn) * (2 if name == "text" else 5) + 1)


def test_a_system_prompt_needs_no_chat_template(data: Path) -> None:
    plain = open_benchmark(_objective(data, search_items=2), "objectives.0", 0)
    told = open_benchmark(_objective(data, search_items=2, system_prompt="Add."), "objectives.0", 0)
    assert told.items[0].prompt == f"Add.{plain.items[0].prompt}"
    assert told.items[0].digest != plain.items[0].digest


def test_a_chat_template_that_no_model_has_is_named(data: Path) -> None:
    models = [open_checkpoint(str(data / "zoo" / name), "k") for name in ("base", "ja")]
    with pytest.raises(InputError, match="k: no tokenizer of .*base, .*ja has a chat template"):
        chat_template_of(models, "k")


def test_a_template_without_a_system_role_is_given_none(
    open_model: Callable[..., ResidentModel],
) -> None:
    tokenizer = copy.deepcopy(open_model("llama").tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('none') }}"
        "{% endif %}<{{ m['content'] }}>{% endfor %}"
    )
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert ChatTemplate(tokenizer)(turns) == "<u>"


def test_a_task_whose_data_or_prompt_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"q": "a", "a": "b"}\n' * 8, encoding="utf-8")
    common = "output_type: generate_until\ntest_split: test\ndoc_to_target: a\ntask: t\n"
    there = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/%s.jsonl}}}}\n"
    for text, said in (
        (common + there % "gone" + "doc_to_text: q\n", "lm-eval cannot load this task: "),
        (common + there % "d" + "doc_to_text: '{{nothing}}'\n", "'nothing' is undefined"),
        (
            common + there % "d" + "doc_to_text: q\nnum_fewshot: 99\nfewshot_split: test\n",
            "lm-eval cannot render this task: ",
        ),
    ):
        path = tmp_path / "task.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError) as caught:
            open_benchmark(Objective(benchmark=str(path)), "objectives.0", seed=0)
        assert str(caught.value).startswith(f"objectives.0.benchmark: {path}: ")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_item_with_an_empty_choice_is_named(tmp_path: Path) -> None:
    lines = [{"q": f"q{n}", "c": ["yes", "" if n == 3 else "no"], "g": 0} for n in range(8)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "d.jsonl").write_text(text, encoding="utf-8")
    path = tmp_path / "task.yaml"
    path.write_text(
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/d.jsonl}}}}\n"
        "task: t\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: q\n"
        "doc_to_choice: c\ndoc_to_target: g\n",
        encoding="utf-8",
    )
    benchmark = open_benchmark(Objective(benchmark=str(path)), "objectives.0", seed=0)
    assert benchmark.notes == (
        "objectives.0.benchmark: 1 item has an empty choice and is not scored: test/3",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"language": "ja"},
            "language: .* is answered by multiple_choice, and there is no written",
        ),
        ({"language": "xx"}, "'xx' is not a language of the detector"),
    ],
)
def test_a_check_that_cannot_be_made_is_named(
    data: Path, changes: dict[str, object], said: str
) -> None:
    path = str(data / "benchmarks" / "zoo_ja_choice.yaml")
    if "xx" in str(changes):
        path = str(data / "benchmarks" / "zoo_ja.yaml")
    with pytest.raises(InputError, match=said):
        open_benchmark(_objective(data, benchmark=path, **changes), "objectives.0", seed=0)
