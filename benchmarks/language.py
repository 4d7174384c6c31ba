"""How well the language of answers is told, on texts of known languages.

    python -m benchmarks.language ja=mgsm_ja.tsv de=mgsm_de.tsv en=mgsm_en.tsv

Each file is a TSV of questions and numbers without a header. Of each language it looks at whole
questions, their sentences, their first 40, 20 and 10 characters, short answers and sums, as what
the check says where any of the languages is wanted, and how often py3langid's first guess is right;
that of lingua-language-detector too, where it is installed.
"""

import argparse
import re
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.record import report
from mergelib.benchmarks.file_rows import read_rows
from mergelib.benchmarks.language import language_check

ANSWERS = {
    "de": ("Die Antwort ist {}.", "16 - 3 - 4 = 9, 9 * 2 = {} Euro"),
    "en": ("The answer is {}.", "16 - 3 - 4 = 9, 9 * 2 = {} dollars"),
    "ja": ("答えは{}です。", "16 - 3 - 4 = 9、9 * 2 = {}ドル"),
}
"""A short answer and a sum, where a number is put in."""

Decide = Callable[[str], str]
"""What is said of a text: same, other or too_short, or a first guess's language."""


def texts_of(language: str, path: Path) -> dict[str, list[str]]:
    """Texts of one language, by kind."""
    rows = read_rows(path, (1, 2), language)
    questions = [str(row[1]) for row in rows]
    sentences = [s.strip() for q in questions for s in re.findall(r"[^。.!?？]+[。.!?？]?", q)]
    kinds = {"question": questions, "sentence": [s for s in sentences if s]}
    kinds |= {f"{n} characters": [q[:n] for q in questions] for n in (40, 20, 10)}
    for kind, words in zip(("answer", "sum"), ANSWERS.get(language, ()), strict=False):
        kinds[kind] = [words.format(row[2]) for row in rows]
    return kinds


def measured(
    detector: str, wanted: str, decide: Decide, texts: Mapping[str, dict[str, list[str]]]
) -> list[dict[str, Any]]:
    """A row for each language and kind of text: shares of what is said, and time."""
    decide("warm")
    rows = []
    for language, kinds in texts.items():
        for kind, examples in kinds.items():
            start = time.process_time()
            said = [decide(text) for text in examples]
            seconds = time.process_time() - start
            rows.append(
                {
                    "detector": detector,
                    "wanted": wanted,
                    "language": language,
                    "kind": kind,
                    "texts": len(examples),
                    **{o: said.count(o) / len(said) for o in ("same", "other", "too_short")},
                    "right": said.count(language) / len(said),
                    "microseconds": 1e6 * seconds / len(said),
                }
            )
    return rows


def _check(language: str, threshold: float) -> Decide:
    check = language_check(language, threshold, "--threshold")
    return lambda text: check(text).outcome


def _py3langid() -> Decide:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return lambda text: str(detector.classify(text)[0])


def _lingua() -> Decide:
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().build()

    def decide(text: str) -> str:
        found = detector.detect_language_of(text)
        return "too_short" if found is None else found.iso_code_639_1.name.lower()

    return decide


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+", metavar="LANGUAGE=FILE.tsv")
    parser.add_argument("--threshold", type=float, default=0.99)
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    files = dict(part.split("=", 1) for part in options.texts)
    texts = {language: texts_of(language, Path(path)) for language, path in files.items()}
    rows = []
    for language in texts:
        check = _check(language, options.threshold)
        rows += measured("the check", language, check, texts)
    rows += measured("py3langid", "any", _py3langid(), texts)
    if find_spec("lingua") is not None:
        rows += measured("lingua", "any", _lingua(), texts)
    report("language", rows, options.json)


if __name__ == "__main__":
    main()
