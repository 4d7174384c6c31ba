"""`prefect.yaml` and the job templates, without a server."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from prefect.utilities.templating import apply_values

from flows.deployments import POOL, write_deployments
from flows.nightly import nightly
from mergelib.errors import InputError
from mergelib.runs import Run
from mergelib.search import parse_search
from mergelib.sections.compute import Compute
from tests.conftest import DATA, small_search

ROOT = DATA.parent


def deployments(file: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = document["deployments"]
    return found


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    module, name = deployment["entrypoint"].rsplit(".", 1)
    flow: Flow[..., Any] = getattr(import_module(module), name)
    return flow


@pytest.mark.parametrize("number", range(4))
def test_a_deployments_parameters_hold_for_its_flow(number: int) -> None:
    deployment = deployments(ROOT / "prefect.yaml")[number]
    flow = flow_of(deployment)
    assert flow.name == deployment["name"]
    schema = parameter_schema(flow).model_dump_for_openapi()
    validate(deployment["parameters"], schema, raise_on_error=True)
    flow.validate_parameters(deployment["parameters"])
    assert deployment["work_pool"]["name"] == POOL


def test_elsewhere_the_shipped_models_are_named_by_their_whole_paths(tmp_path: Path) -> None:
    names = write_deployments(tmp_path / "home", tmp_path / "store", tmp_path)
    assert names[:2] == ["evolve/evolve", "compare/compare"]
    for deployment in deployments(tmp_path / "prefect.yaml"):
        assert deployment["parameters"]["store"] == str(tmp_path / "store")
    search = deployments(tmp_path / "prefect.yaml")[0]["parameters"]["search"]
    for path in (search["base"], *search["endpoints"], search["objectives"][0]["benchmark"]):
        assert Path(path).is_absolute()
        assert Path(path).exists()


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_a_job_template_asks_for_gpus(kind: str) -> None:
    template = json.loads((ROOT / "deploy" / f"{kind}-pool.json").read_text(encoding="utf-8"))
    variables = template["variables"]["properties"]
    assert all(variable["description"] for variable in variables.values())
    values = {name: v["default"] for name, v in variables.items() if "default" in v}
    job = apply_values(template["job_configuration"], {**values, "image": "mergeflow", "gpus": 2})
    if kind == "docker":
        (request,) = job["container_create_kwargs"]["device_requests"]
        assert request == {"driver": "nvidia", "count": 2, "capabilities": [["gpu"]]}
    else:
        (container,) = job["job_manifest"]["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
        assert container["image"] == "mergeflow"


def test_a_night_ends_at_its_budget_and_another_goes_on(tmp_path: Path) -> None:
    content = small_search()
    content["name"] = "nights"
    content["evolution"]["generations"] = 1
    search = parse_search(content, "test")
    run = Run(Path(nightly(search, str(tmp_path))))
    assert run.finished_generations() == 1
    assert run.has("report.html")
    # The same night again: nothing is left of it.
    nightly(search, str(tmp_path))
    assert run.finished_generations() == 1
    nights = run.json("nights.json")
    (tonight,) = nights
    run.write_json("nights.json", {"yesterday": nights[tonight]})
    nightly(search, str(tmp_path))
    assert run.finished_generations() == 2
    assert run.json("ledger.json")["answered_twice"] == 0


def test_a_night_that_is_refused_has_no_limits_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = parse_search(small_search() | {"name": "refused"}, "test")
    run = Run.of(search, tmp_path)
    with run.lock(), pytest.raises(InputError, match="refused is in use by process "):
        nightly.fn(search, str(tmp_path))
    handed_out = search.model_copy(update={"compute": Compute(runner="ray")})
    monkeypatch.setattr("flows.runners.find_spec", lambda name: None)
    with pytest.raises(InputError, match="compute.runner: ray is not installed"):
        nightly.fn(handed_out, str(tmp_path))
    assert [file.name for file in run.folder.iterdir()] == [".lock"]
