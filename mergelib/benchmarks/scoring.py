"""Raw answers become item scores, through lm-eval's own filters and `process_results`.

Where a search names a scorer it takes the metric's place, on the answer that the filter leaves; a
language check looks at the whole answer.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mergelib.benchmarks.answers import NoAnswer, RawAnswers
from mergelib.benchmarks.items import Benchmark, Item
from mergelib.benchmarks.language import reason
from mergelib.benchmarks.scorers import NotScored
from mergelib.benchmarks.sources import FAULTS, in_one_line
from mergelib.errors import InputError


class Response(NamedTuple):
    """One model's scored answer to one item.

    Attributes:
        response: 1 right, 0 wrong, None not scored or graded in between.
        value: the metric as lm-eval computes it, one minus it where lower is better; None where
            there is none.
        answer: the filtered text, or the chosen answer's number.
        reason: why it was not scored, or what the language check found; None for neither.
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
    missing = [_missing(answers) for answers in raw]
    asked: dict[str, list[Any]] = {}
    requests: list[list[Any]] = []
    for item, answers in zip(items, raw, strict=True):
        requests.append([copy.copy(instance) for instance in item.instances])
        for instance, repeats in zip(requests[-1], answers, strict=True):
            instance.resps, instance.filtered_resps = list(repeats), {}
    for item, own, refused in zip(items, requests, missing, strict=True):
        if refused is None:
            asked.setdefault(str(item.instances[0].task_name), []).extend(own)
    tasks = {str(item.instances[0].task_name): benchmark.task_of(item) for item in items}
    for name, instances in asked.items():
        pipelines = [p for p in tasks[name]._filters if p.name == benchmark.filter]
        pipelines[0].apply(instances)
    responses = []
    for item, own, refused in zip(items, requests, missing, strict=True):
        if refused is not None:
            responses.append(Response(None, None, "", refused))
            continue
        filtered = [instance.filtered_resps[benchmark.filter] for instance in own]
        response = _scored(benchmark, item, filtered)
        responses.append(_in_language(benchmark, response, own))
    return responses


def _scored(benchmark: Benchmark, item: Item, filtered: list[Any]) -> Response:
    answer = _shown(filtered)
    if benchmark.scorer is None:
        try:
            results = benchmark.task_of(item).process_results(item.doc, filtered)
        except (*FAULTS, ArithmeticError) as error:
            return Response(None, None, answer, f"lm-eval cannot score it: {in_one_line(error)}")
        value = results.get(benchmark.metric)
        return _response(benchmark, value, answer)
    about = {
        "item_id": item.item_id,
        "question": item.question,
        "prompt": item.prompt,
        "choices": item.choices,
        "target": item.target,
        "doc": item.doc,
    }
    text = answer if item.choices is None else item.choices[int(answer)].strip()
    try:
        value = benchmark.scorer(about, text)
    except NotScored as error:
        return Response(None, None, answer, str(error))
    if value is None:
        return Response(None, None, answer, f"scorer {benchmark.scorer.name} gave None")
    return _response(benchmark, value, answer)


def _in_language(benchmark: Benchmark, response: Response, own: list[Any]) -> Response:
    """A response after the language check: 0 in another language, as it was where that is open."""
    check = benchmark.language
    if check is None or response.value is None:
        return response
    verdict = check("\n".join(str(answer) for answer in own[0].resps))
    said = reason(verdict, check.language)
    if verdict.outcome == "other":
        return Response(0, 0.0, response.answer, said)
    return response._replace(reason=said)


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
