"""One act that costs: a model is merged and answers items. What is asked, and what comes of it."""

from collections.abc import Mapping
from typing import Any, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

Asked = Mapping[str, list[str]]
"""For each benchmark, by name, the ids of the items to answer."""


@with_config(ConfigDict(extra="forbid"))
class Evaluation(TypedDict):
    """What came of merging a model and asking it: plain JSON.

    `responses` has, for each benchmark, a list for each item in the order asked:
    [response, value, answer, reason], see `mergelib.benchmarks.scoring.Response`. `traceback` is
    there where an error made it fail.
    """

    status: str
    reason: str | None
    responses: dict[str, list[list[Any]]]
    items: int
    tokens: int
    flops: float
    seconds_merge: float
    seconds_answer: float
    traceback: NotRequired[str]


def nothing_done(status: str, reason: str | None) -> Evaluation:
    """An evaluation without responses or costs: of a failure, or before the first item."""
    return Evaluation(
        status=status,
        reason=reason,
        responses={},
        items=0,
        tokens=0,
        flops=0.0,
        seconds_merge=0.0,
        seconds_answer=0.0,
    )
