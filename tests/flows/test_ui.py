"""`mergeflow ui` as a user has it: a real server, worker and schedule, looked at in Chromium."""

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from mergelib.runs import Run
from tests.flows.test_cli import COMMAND, environment

TINY = (
    "name=scheduled",
    "objectives.0.search_items=40",
    "objectives.0.fresh_items=30",
    "fitness.items=10",
    "fitness.calibration.models=3",
    "fitness.calibration.share=0.5",
    "evolution.population=4",
    "evolution.generations=2",
    "finalists=2",
    "deciding_items=20",
)
"""What makes a shipped search one of seconds."""

SOON = {
    f"PREFECT_SERVER_SERVICES_SCHEDULER_{loop}LOOP_SECONDS": "1"
    for loop in ("", "RECENT_DEPLOYMENTS_")
}
"""The server looks at its schedules every second instead of every minute."""


class Ui(NamedTuple):
    """A `mergeflow ui` that is up.

    Attributes:
        address: of Prefect's UI.
        reports: of the store's reports.
        forms: the deployments' ids.
        store: folder of run folders.
    """

    address: str
    reports: str
    forms: dict[str, str]
    store: Path

    def post(self, path: str, content: Any) -> httpx.Response:
        return httpx.post(f"{self.address}/api{path}", json=content, timeout=30)

    def find(self, what: str, **content: Any) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.post(f"/{what}/filter", content).json()
        return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Started on a free port, ended as by Ctrl-C, with nothing left behind."""
    folder = tmp_path_factory.mktemp("ui")
    store, log = folder / "runs", folder / "ui.log"
    command = [*COMMAND, "ui", "--store", str(store), "--port", str(_free_port())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**environment(), **SOON}, stdout=output, stderr=output, cwd=folder
        )
    try:
        end = time.monotonic() + 400
        while "Ctrl-C stops" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.25)
        said = log.read_text()
        assert "Ctrl-C stops the server and the worker." in said
        address = re.search(r"Prefect's UI +(\S+)", said)
        reports = re.search(r"reports +(\S+)", said)
        assert address
        assert reports
        forms = dict(re.findall(r"(\S+) +\S+/deployments/deployment/(\S+)/run", said))
        children = psutil.Process(process.pid).children(recursive=True)
        yield Ui(address[1], reports[1], forms, store)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0, log.read_text()
        assert not [child for child in children if child.is_running()]
        assert "Stopped" in log.read_text()
    finally:
        process.kill()


@pytest.fixture(scope="module")
def scheduled(ui: Ui) -> dict[str, Any]:
    """A flow run of the demo's deployment that its schedule made and the worker has finished."""
    parameters = {"store": str(ui.store), "searches": ["zoo-ja"], "changes": TINY}
    soon = (datetime.now(UTC) + timedelta(seconds=8)).isoformat()
    schedule = {
        "schedule": {"interval": 86400, "anchor_date": soon},
        "active": True,
        "parameters": parameters,
    }
    made = ui.post(f"/deployments/{ui.forms['demo']}/schedules", [schedule])
    assert made.status_code == 201, made.text
    end = time.monotonic() + 400
    while time.monotonic() < end:
        for run in ui.find("flow_runs", flow_runs={"name": {"any_": ["demo"]}}):
            assert run["state_type"] not in ("FAILED", "CRASHED"), run["state"]
            if run["state_type"] == "COMPLETED":
                return run
        time.sleep(0.5)
    runs = [(run["name"], run["state_name"]) for run in ui.find("flow_runs")]
    pytest.fail(f"not finished: {runs}")


def test_every_deployment_has_a_form(ui: Ui) -> None:
    assert set(ui.forms) == {"evolve", "compare", "demo", "nightly-evolve"}
    for name, identity in ui.forms.items():
        deployment = httpx.get(f"{ui.address}/api/deployments/{identity}").json()
        schema = deployment["parameter_openapi_schema"]
        assert deployment["enforce_parameter_schema"]
        for definition in (schema, *schema.get("definitions", {}).values()):
            for key, field in definition.get("properties", {}).items():
                assert field.get("description") or "$ref" in field, (name, key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evolution": {"population": 0}}, "0 is less than the minimum of 2"),
        ({"evolution": {"algorithm": "annealing"}}, "'annealing' is not one of"),
        ({"populations": 12}, "'populations' was unexpected"),
        ({"compute": {"device": "gpu"}}, "'gpu' does not match"),
        ({"endpoints": ["one"]}, "is too short"),
    ],
)
def test_a_wrong_parameter_is_refused_by_the_server(
    ui: Ui, change: dict[str, Any], said: str
) -> None:
    deployment = httpx.get(f"{ui.address}/api/deployments/{ui.forms['evolve']}").json()
    search = {**deployment["parameters"]["search"], **change}
    before = len(ui.find("flow_runs"))
    answer = ui.post(
        f"/deployments/{ui.forms['evolve']}/create_flow_run", {"parameters": {"search": search}}
    )
    assert answer.status_code == 409
    assert said in answer.text
    assert len(ui.find("flow_runs")) == before


def test_a_worker_runs_the_demo_from_its_schedule(ui: Ui, scheduled: dict[str, Any]) -> None:
    assert scheduled["auto_scheduled"]
    run = Run(ui.store / "scheduled")
    assert run.finished_generations() == 2
    assert run.has("report.html", "winner/model.safetensors")


def test_the_log_has_a_line_for_each_generation(ui: Ui, scheduled: dict[str, Any]) -> None:
    by_parent = {"parent_flow_run_id": {"any_": [scheduled["id"]]}}
    (evolve,) = ui.find("flow_runs", flow_runs=by_parent)
    # Prefect sends lines every other second, and the last ones when the process ends: after the
    # state that says the flow is finished.
    end = time.monotonic() + 60
    said: list[str] = []
    while len(said) < 3 and time.monotonic() < end:
        time.sleep(0.25)
        lines = ui.find("logs", logs={"flow_run_id": {"any_": [evolve["id"]]}})
        said = [line["message"] for line in sorted(lines, key=lambda line: line["timestamp"])]
    assert [line.split(":")[0] for line in said] == [
        "generation 1 of 2",
        "generation 2 of 2",
        "all 2 generations are finished",
    ]


def test_reports_are_served_and_nothing_else(ui: Ui, scheduled: dict[str, Any]) -> None:
    assert "<svg" in httpx.get(f"{ui.reports}/scheduled/report.html").text
    assert "scheduled/report.html" in httpx.get(ui.reports).text
    for path in ("/scheduled/journal.jsonl", "/.mergeflow/search.yaml", "/%2e%2e/search.yaml"):
        assert httpx.get(ui.reports + path).status_code == 404
    others = httpx.get(ui.reports, headers={"Host": "elsewhere.example"})
    assert others.status_code == 400


def test_a_second_one_says_what_is_there_already(ui: Ui) -> None:
    port = ui.address.rsplit(":", 1)[1]
    command = [*COMMAND, "ui", "--store", str(ui.store), "--port", port]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, text=True, cwd=ui.store.parent
    )
    assert process.stdout
    try:
        said = ""
        while "Ctrl-C stops" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        assert "Ctrl-C stops nothing" in said
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
    assert httpx.get(f"{ui.address}/api/health").json() is True


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of a Chromium without a window."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install playwright"
    )
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as control:
        browser = control.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        playwright.expect.set_options(timeout=90_000)
        opened = browser.new_page(viewport={"width": 1400, "height": 1000})
        opened.set_default_timeout(90_000)
        yield opened
        browser.close()


def test_chromium_sees_the_run_its_generations_and_its_artifacts(
    ui: Ui, scheduled: dict[str, Any], page: Any
) -> None:
    from playwright.sync_api import expect as see

    by_parent = {"parent_flow_run_id": {"any_": [scheduled["id"]]}}
    (evolve,) = ui.find("flow_runs", flow_runs=by_parent)
    page.goto(f"{ui.address}/runs/flow-run/{evolve['id']}")
    see(page.get_by_text("evolve scheduled").first).to_be_visible()
    see(page.get_by_text("search:scheduled").first).to_be_visible()
    page.get_by_text("Subflow Runs").click()
    for name in ("prepare", "generation 1 of 2", "generation 2 of 2", "finish"):
        see(page.get_by_role("link", name=name).first).to_be_visible()
    page.get_by_text("Artifacts").last.click()
    for kind in ("progress", "population", "convergence", "parents", "ledger", "winner"):
        see(page.get_by_text(f"scheduled-{kind}").first).to_be_visible()
    (report,) = ui.find("artifacts", artifacts={"key": {"any_": ["scheduled-report"]}})
    page.goto(f"{ui.address}/artifacts/artifact/{report['id']}")
    see(page.get_by_text("The winner answers").first).to_be_visible()
    picture = page.locator("article img, .markdown-renderer img").first
    see(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    link = page.get_by_role("link", name="Open the report").get_attribute("href")
    page.goto(link)
    see(page.get_by_role("heading", name="scheduled")).to_be_visible()


def test_a_search_is_launched_from_its_form(ui: Ui, page: Any) -> None:
    page.goto(f"{ui.address}/deployments/deployment/{ui.forms['evolve']}/run")
    for name, value in (("Name", "from-the-form"), ("Generations", "2")):
        label = f"normalize-space(.)='{name}' or starts-with(normalize-space(.),'{name} (')"
        field = "ancestor::div[starts-with(@class,'p-label schema-form-property')][1]"
        path = f"xpath=//span[@class='schema-form-property__label' and ({label})]/{field}"
        page.locator(path).locator("input,textarea").first.fill(value)
    page.get_by_role("button", name="Submit").click()
    end = time.monotonic() + 30
    while True:
        runs = ui.find("flow_runs")
        launched = [run for run in runs if "search" in run["parameters"]]
        launched = [r for r in launched if r["parameters"]["search"]["name"] == "from-the-form"]
        if launched:
            break
        assert time.monotonic() < end, runs
        time.sleep(0.5)
    (run,) = launched
    assert run["parameters"]["search"]["evolution"]["generations"] == 2
    assert run["parameters"]["search"]["merge"]["method"] == "task_arithmetic"
    httpx.delete(f"{ui.address}/api/flow_runs/{run['id']}")


def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "ui", "--store", str(tmp_path / "runs"), "--port", port],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == f"--port {port}: in use, and not by Prefect; give another\n"
