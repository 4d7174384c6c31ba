"""What Prefect's UI is given of a search: names, tags, artifacts that are kept up to date."""

import json
import re
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from mergelib.evaluation import nothing_done
from mergelib.runs import Run
from mergelib.story import Story, in_name, score_in_name
from tasks.naming import name_by_score
from tasks.showing import artifact_key, report_link


def of_server(what: str, **content: Any) -> list[dict[str, Any]]:
    """Everything of a kind that the test server has."""
    with get_client(sync_client=True) as client:
        answer: list[dict[str, Any]] = client.request(
            "POST", f"/{what}/filter", json={"limit": 200, **content}
        ).json()
    return answer


def runs_of(search: str) -> list[dict[str, Any]]:
    """The flow runs of a search, in the order in which they began."""
    by_tag = {"flow_runs": {"tags": {"all_": [f"search:{search}"]}}}
    return of_server("flow_runs", sort="START_TIME_ASC", **by_tag)


def test_a_search_is_a_flow_run_with_a_subflow_for_each_generation(finished: Run) -> None:
    names = [run["name"] for run in runs_of("small")]
    generations = [f"generation {number} of 3" for number in (1, 2, 3)]
    assert names[:6] == ["evolve small", "prepare", *generations, "finish"]


def test_flow_runs_can_be_filtered_by_search_algorithm_and_method(finished_front: Run) -> None:
    for run in runs_of("front"):
        assert {"search:front", "algorithm:nsga2", "method:task_arithmetic"} <= set(run["tags"])


def test_artifacts_have_stable_keys_and_one_version_a_flow_run(finished_front: Run) -> None:
    (evolve, *_) = runs_of("front")
    by_run = {"artifacts": {"flow_run_id": {"any_": [evolve["id"]]}}}
    artifacts = of_server("artifacts", **by_run)
    kinds = ["convergence", "front", "ledger", "parents", "population", "progress", "report"]
    assert sorted(a["key"] for a in artifacts) == [f"front-{kind}" for kind in [*kinds, "winner"]]
    data = {a["key"].removeprefix("front-"): a["data"] for a in artifacts}
    assert data["progress"] == 100
    assert json.loads(data["population"]) == Story(finished_front).population
    assert data["convergence"].count("](data:image/svg+xml;base64,") == 2
    assert str(finished_front.path("front")) in data["winner"]
    assert all(a["description"] for a in artifacts)


def test_the_story_says_how_far_the_search_is(finished: Run) -> None:
    story = Story(finished)
    # The luckiest of many candidates on few items is not what is told of them.
    raw = max(max(finished.generation(n)["fitness"].to_pylist()) for n in range(3))
    told = re.fullmatch(
        r"generation 3 of 3: best estimate ([\d.]+) %, smoothed; .*", story.headline
    )
    assert told is not None
    assert 0 < float(told[1]) < 100 * raw
    assert story.headline.endswith("about 0 s to come")
    population = story.population
    estimates = [float(row["zoo_ja, %"].split()[0]) for row in population]
    assert len(population) == 4
    assert estimates == sorted(estimates, reverse=True)
    assert story.front == []
    for name in ("base base", "endpoint math", "endpoint ja", "best candidate"):
        assert f"| {name}" in story.comparison
    assert [row["stage"] for row in story.ledger][-2:] == ["all", "these models on all items"]


def test_an_evaluation_is_named_by_its_model_and_score() -> None:
    right, wrong, unscored = ([1, 1.0, "", None], [0, 0.0, "", None], [None, None, "", "why"])
    assert in_name("2.5", "3f2a91c0" * 8) == "2.5, 3f2a91c0"
    assert in_name("finalist 3f2a91c0", "3f2a91c0" * 8) == "finalist 3f2a91c0"
    assert score_in_name({"a": [right, right, wrong, unscored], "b": [wrong]}) == ": 66.7 % / 0.0 %"
    assert score_in_name({"a": [unscored]}) == ": not scored"
    assert score_in_name({}) == ": failed"


def test_without_a_task_run_nothing_is_named() -> None:
    assert FlowRunContext.get() is None
    name_by_score(nothing_done("ok", None))


def test_keys_are_what_prefect_allows() -> None:
    assert artifact_key("Zoo_JA.2", "front") == "zoo-ja-2-front"


def test_a_report_has_a_link_where_something_serves_it(monkeypatch: Any) -> None:
    monkeypatch.delenv("MERGEFLOW_REPORTS_URL", raising=False)
    assert report_link("zoo", "report.html") is None
    monkeypatch.setenv("MERGEFLOW_REPORTS_URL", "http://127.0.0.1:4201/")
    assert report_link("zoo", "report.html") == "http://127.0.0.1:4201/zoo/report.html"
