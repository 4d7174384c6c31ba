"""What a score does not tell: answers in another language, and answers that have no score."""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from mergelib.benchmarks.language import LanguageCheck, counted


def remarks(
    responses: pa.Table, benchmark: str, models: Mapping[str, str], check: LanguageCheck | None
) -> list[str]:
    """Sentences on one benchmark's responses, with each model's counts where there are any.

    Args:
        responses: with the columns of `mergelib.tables.RESPONSE_SCHEMA`.
        benchmark: the benchmark's name.
        models: what to call each model, by its digest, in the order to be told in.
        check: the benchmark's language check; None for none.
    """
    own = responses.filter(pa.compute.equal(responses["benchmark"], benchmark)).to_pylist()
    of_model = {model: [row for row in own if row["model"] == model] for model in models}
    sentences = []
    if check is not None:
        found = {m: counted([row["reason"] for row in rows]) for m, rows in of_model.items()}
        wrong = _told({m: other for m, (other, _) in found.items()}, of_model, models)
        short = _told({m: short for m, (_, short) in found.items()}, of_model, models)
        sentences += [
            f"In another language than {check.language}, and so wrong: {wrong}.",
            f"Too short to tell the language, and left as scored: {short}.",
        ]
    unscored = {
        model: [row["reason"] for row in rows if row["value"] is None]
        for model, rows in of_model.items()
    }
    reasons = Counter(reason for of_one in unscored.values() for reason in of_one)
    if reasons:
        counts = _told({m: len(of_one) for m, of_one in unscored.items()}, of_model, models)
        why = reasons.most_common(1)[0][0]
        sentences.append(f"Not scored, and left out of the score: {counts}; mostly: {why}.")
    return sentences


def _told(
    counts: Mapping[str, int], rows: Mapping[str, list[object]], models: Mapping[str, str]
) -> str:
    parts = [f"{models[m]} {count} of {len(rows[m])}" for m, count in counts.items() if count]
    return ", ".join(parts) or "none"
