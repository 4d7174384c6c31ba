"""What a search's rehearsal has to tell before any work: what is cut, what could not be scored."""

from collections.abc import Mapping

from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.items import Benchmark
from mergelib.errors import InputError
from mergelib.evaluation import Evaluation


def rehearsed(
    benchmarks: Mapping[str, Benchmark], answerer: Answerer, first: Evaluation
) -> list[str]:
    """Lines on what is no obstacle and yet worth telling.

    Args:
        benchmarks: of the search, by name.
        answerer: asks the first model.
        first: what a model answered to an item of each benchmark.

    Raises:
        InputError: no item of a benchmark can be answered.
    """
    notes = list(answerer.notes)
    for name, benchmark in benchmarks.items():
        why = answerer.unanswerable(benchmark.items)
        if why is not None:
            raise InputError(f"{name}: none of its items can be answered: {why}")
        cut = answerer.cut(benchmark.items)
        if cut:
            notes.append(
                f"{name}: {len(cut)} of {len(benchmark.items)} items are longer than the model's "
                f"context, such as {cut[0].item_id}; their prompts are cut on the left"
            )
    for name, responses in first["responses"].items():
        notes += [
            f"{name}: its first item could not be scored: {reason}"
            for _, value, _, reason in responses
            if value is None
        ]
    return notes
