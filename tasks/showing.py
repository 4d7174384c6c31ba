"""The search's story in Prefect's UI: artifacts under stable keys, kept up to date in place."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect import get_client, tags
from prefect.artifacts import Artifact, MarkdownArtifact, ProgressArtifact, TableArtifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import FlowRunContext

from mergelib.outcome import outcome_markdown, winner_markdown
from mergelib.report import Result
from mergelib.runs import Run
from mergelib.search import Search
from mergelib.story import Story

logger = logging.getLogger("mergeflow")

REPORTS_URL = "MERGEFLOW_REPORTS_URL"
"""The environment variable that says where `mergeflow ui` serves the store's reports."""

_SHARE = 0.01
"""The share of a search's time that may go into its pictures and tables."""

_POPULATION = "The last generation's candidates, the best first: estimates with 95 % intervals"
_PICTURE = "The estimates of all candidates so far"
_WINNER = "Where the exported models are, and their recipes"
_FRONT = "The best trade-offs so far, by their estimates"
_PARENTS = "The best so far beside the base and the endpoints"
_LEDGER = "What has been answered so far, and what a full evaluation would have cost"


@contextmanager
def tagged(search: Search) -> Iterator[None]:
    """Tag the flow run that is running, and all that is run within, by what can be filtered."""
    names = {f"search:{search.name}", f"algorithm:{search.evolution.algorithm}"}
    names |= {f"method:{method}" for method in search.merge.methods}
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        own = names | set(context.flow_run.tags)
        with get_client(sync_client=True) as client:
            client.update_flow_run(context.flow_run.id, tags=own)
    with tags(*names):
        yield


class Showcase:
    """The artifacts of one flow run."""

    def __init__(self, run: Run, share_done: Callable[[], float]) -> None:
        """Nothing is shown yet.

        Args:
            run: the run.
            share_done: how much of the search is done, 0 to 1.
        """
        self._run, self._share_done = run, share_done
        self._ids: dict[str, UUID] = {}
        self._shown_at, self._cost = -float("inf"), 0.0

    def update(self, *, last: bool = False) -> None:
        """Show how the search stands, unless it was shown a moment ago.

        Args:
            last: whether to show it however short ago it was shown.
        """
        start = time.monotonic()
        if not last and (start - self._shown_at) * _SHARE < self._cost:
            return
        story, done = Story(self._run), 100 * self._share_done()
        self._put("progress", ProgressArtifact(progress=done, description=story.headline))
        if story.population:
            self._put("population", TableArtifact(table=story.population, description=_POPULATION))
            pictures = MarkdownArtifact(markdown=story.convergence, description=_PICTURE)
            self._put("convergence", pictures)
        if story.front:
            self._put("front", TableArtifact(table=story.front, description=_FRONT))
        self._put("parents", MarkdownArtifact(markdown=story.comparison, description=_PARENTS))
        self._put("ledger", TableArtifact(table=story.ledger, description=_LEDGER))
        self._shown_at = time.monotonic()
        self._cost = self._shown_at - start

    def finish(self) -> None:
        """Show what came out, and where it lies."""
        self.update(last=True)
        result = Result(self._run, self._run.json("ledger.json"))
        link = report_link(self._run.folder.name, "report.html")
        report, winner = outcome_markdown(result, link), winner_markdown(result)
        self._put("report", MarkdownArtifact(markdown=report, description=result.verdict))
        self._put("winner", MarkdownArtifact(markdown=winner, description=_WINNER))

    def _put(self, what: str, artifact: Artifact) -> None:
        """Make the artifact, or put its content in the place of what was shown before.

        A search goes on if the server cannot take it, because it is restarted, say.
        """
        try:
            self._send(what, artifact)
        except httpx.HTTPError as error:
            logger.warning("%s is not shown: %s", what, " ".join(str(error).split())[:200])

    def _send(self, what: str, artifact: Artifact) -> None:
        if what not in self._ids:
            artifact.key = artifact_key(self._run.folder.name, what)
            self._ids[what] = artifact.create().id
            return
        update = ArtifactUpdate(data=artifact.format(), description=artifact.description)
        with get_client(sync_client=True) as client:
            # The client's own method would send the picture a second time, as an event.
            client.request(
                "PATCH",
                "/artifacts/{id}",
                path_params={"id": self._ids[what]},
                json=update.model_dump(mode="json", exclude_unset=True),
            )


def artifact_key(name: str, what: str) -> str:
    """Artifact keys are global in Prefect, and lower case with dashes."""
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())
    return f"{safe}-{what}"


def report_link(run: str, file: str) -> str | None:
    """Where a browser finds a run's page; None where nothing serves it."""
    address = os.environ.get(REPORTS_URL)
    return f"{address.rstrip('/')}/{run}/{file}" if address else None
