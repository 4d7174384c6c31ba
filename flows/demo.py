"""The searches on the shipped models, as one flow."""

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.evolve import evolve
from mergelib.search_file import load_search
from mergelib.shipped import shipped


@flow(name="demo", flow_run_name="demo", persist_result=False)
def demo(
    store: str = "runs",
    searches: Annotated[
        tuple[Literal["zoo-ja", "zoo-front"], ...],
        Field(description="Which of the shipped search files, one after the other"),
    ] = ("zoo-ja", "zoo-front"),
    changes: Annotated[
        tuple[str, ...],
        Field(description='Keys that are set otherwise, such as "evolution.generations=20"'),
    ] = (),
) -> list[str]:
    """Two searches on the shipped models: one objective, and a front of two.

    Args:
        store: folder of run folders.
        searches: names of shipped search files.
        changes: "key=value" settings that win over each file.

    Returns:
        The run folders.
    """
    files = [shipped("searches") / f"{name}.yaml" for name in searches]
    return [evolve(load_search(file, changes), store) for file in files]
