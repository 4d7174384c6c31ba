"""Raw answers become item scores, through lm-eval's own filters and `process_results`."""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mergelib.benchmarks.answers import NoAnswer, RawAnswers
from mergelib.benchmarks.items import Benchmark, Item
from mergelib.errors import InputError


class Response(NamedTuple):
    """One model's scored answer to one item.

    Attributes:
        response: 1 right, 0 wrong, None not scored or graded in between.
        value: the metric as lm-eval computes it, one minus it where lower is better; None where
            there is none.
        answer: the filtered text, or the chosen answer's number.
        reason: why it was not scored; None where it was.
    """

    response: int | None
    value: float | None
    answer: str
    reason: str | None


def score(benchmark: Benchmark, items: Sequence[Item], raw: RawAnswers) -> list[Response]:
    """Score answers.

    Args:
        benchmark: says which filter and metric count.
        items: what was asked.
        raw: what was answered, an entry for each item.

    Returns:
        A response for each item. A request without an answer, a metric that lm-eval leaves
        out for an item, or one that is not finite, is "not scored", never "wrong".

    Raises:
        InputError: the metric gives something outside 0 to 1 for an item.
    """
    instances = []
    missing = [_missing(answers) for answers in raw]
    for item, answers, reason in zip(items, raw, missing, strict=True):
        if reason is not None:
            continue
        for instance, repeats in zip(item.instances, answers, strict=True):
            asked = copy.copy(instance)
            asked.resps, asked.filtered_resps = list(repeats), {}
            instances.append(asked)
    pipelines = [p for p in benchmark.task._filters if p.name == benchmark.filter]
    pipelines[0].apply(instances)
    remaining = iter(instances)
    responses = []
    for item, reason in zip(items, missing, strict=True):
        if reason is not None:
            responses.append(Response(None, None, "", reason))
            continue
        filtered = [next(remaining).filtered_resps[benchmark.filter] for _ in item.instances]
        value = benchmark.task.process_results(item.doc, filtered).get(benchmark.metric)
        responses.append(_response(benchmark, value, _shown(filtered)))
    return responses


def _missing(answers: list[Any]) -> str | None:
    """Why an item cannot be scored; None where each of its requests has an answer."""
    refused = [a for repeats in answers for a in repeats if isinstance(a, NoAnswer)]
    return refused[0].reason if refused else None


def _shown(filtered: list[Any]) -> str:
    """The answer as text; of several choices, the number of the likeliest."""
    if len(filtered) == 1:
        return str(filtered[0])
    return str(max(range(len(filtered)), key=lambda choice: filtered[choice][0]))


def _response(benchmark: Benchmark, value: Any, answer: str) -> Response:
    if value is None:
        return Response(None, None, answer, f"lm-eval gave no {benchmark.metric}")
    if not isinstance(value, int | float):
        value = getattr(value, "item", lambda: math.nan)()
    if not math.isfinite(value):
        return Response(None, None, answer, f"{benchmark.metric} is not a finite number")
    if not 0 <= value <= 1:
        raise InputError(
            f"objectives: {benchmark.name}: {benchmark.metric} gives {value:g} for an item; "
            "only metrics between 0 and 1 for each item can be searched"
        )
    good = float(value if benchmark.higher_is_better else 1 - value)
    return Response(int(good) if good in (0, 1) else None, good, answer, None)
