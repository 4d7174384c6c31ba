"""Texts that the model writes itself: one large batch, prompts that begin alike computed once."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix

from mergelib.benchmarks.answers import Meter, NoAnswer
from mergelib.benchmarks.decoder import Decoder
from mergelib.benchmarks.prefixes import gather
from mergelib.benchmarks.rows import RowPlan, Rows, plan_rows
from mergelib.benchmarks.stopping import Rules, Stops, chances, draw, read_rules

_COMPACT = 0.8
"""Finished rows leave the cache when no more than this share is still being written."""


class Prompt(NamedTuple):
    """A text to be continued.

    Attributes:
        benchmark: the benchmark's name.
        text: the text.
        tokens: what goes through the model; at least 1.
        rules: how it is continued.
    """

    benchmark: str
    text: str
    tokens: tuple[int, ...]
    rules: Rules


class _Row(NamedTuple):
    """A continuation to be written.

    Attributes:
        request: the number of the request.
        tokens: the prompt.
        rules: how it is continued.
        chances: a number for each token that may be drawn; none where nothing is drawn.
    """

    request: int
    tokens: tuple[int, ...]
    rules: Rules
    chances: np.ndarray


class Generations:
    """Requests for texts, made ready once; asked of any weights."""

    def __init__(
        self, lm: HFLM, decoder: Decoder, prompts: Sequence[Prompt], batch: int, capacity: int
    ) -> None:
        """Lay prompts out.

        Args:
            lm: decodes.
            decoder: the model.
            prompts: one that is repeated comes several times.
            batch: how many texts are written together.
            capacity: how many tokens of prompts may go through the model together; one prompt
                alone may be longer.
        """
        self._decoder = decoder
        self._stops = Stops(lm)
        self._size = batch
        self._capacity = capacity
        self._sources: list[int] = []
        rows: dict[Any, _Row] = {}
        named: dict[str, dict[Any, _Row]] = {}
        repeats: Counter[Prompt] = Counter()
        for number, prompt in enumerate(prompts):
            # The likeliest text is the same each time; drawn ones differ.
            again = repeats[prompt] if prompt.rules.temperature > 0 else 0
            repeats[prompt] += 1
            if (prompt, again) not in rows:
                count = prompt.rules.most if prompt.rules.temperature > 0 else 0
                drawn = chances((prompt.text, again), count)
                rows[prompt, again] = _Row(number, prompt.tokens, prompt.rules, drawn)
            self._sources.append(rows[prompt, again].request)
            named.setdefault(prompt.benchmark, {})[prompt, again] = rows[prompt, again]
        self._rows = list(rows.values())
        groups = [list(group.values()) for group in named.values()]
        self._groups = gather(groups, lambda row: row.tokens)
        self._divide()

    def _divide(self) -> None:
        """Make batches, each of texts of like length: less padding."""
        columns = max(len(row.tokens) + row.rules.most for row in self._rows)
        self._size = min(self._size, len(self._rows), self._decoder.rows(columns))
        self._batches = []
        for group in self._groups:
            group.sort(key=lambda row: (-len(row.tokens), row.request))
            for n in range(0, len(group), self._size):
                part = group[n : n + self._size]
                self._batches.append((part, self._plan(part)))

    def _plan(self, rows: list[_Row]) -> RowPlan:
        most = max(row.rules.most for row in rows)
        return plan_rows(self._decoder, [row.tokens for row in rows], most, self._capacity)

    def answer(self, meter: Meter) -> list[Any]:
        """Let the model write.

        Args:
            meter: counts what goes through the model.

        Returns:
            A text for each request.
        """
        while True:
            try:
                with self._decoder.products.quick():
                    written = {
                        row.request: text
                        for rows, plan in self._batches
                        for row, text in zip(
                            rows,
                            _Writing(self._decoder, self._stops, rows).run(plan, meter),
                            strict=True,
                        )
                    }
                return [written[source] for source in self._sources]
            except torch.OutOfMemoryError:
                if self._size == 1:
                    raise
            self._size //= 2
            self._capacity = max(1, self._capacity // 2)
            self._divide()


def read_prompt(lm: HFLM, instance: Instance) -> Prompt | NoAnswer | None:
    """Encode a prompt as lm-eval's `generate_until` does, cut on the left to leave room.

    Args:
        lm: encodes, and knows the longest input.
        instance: the request.

    Returns:
        The prompt; None where something is asked for that only transformers' own generation does.
    """
    text, asked = instance.args
    rules = read_rules(lm, asked)
    if not isinstance(rules, Rules):
        return rules
    special = {}
    if has_bos_prefix(text, getattr(lm.tokenizer, "bos_token", None)):
        special["add_special_tokens"] = False
    tokens = lm.tokenizer(text, **special)["input_ids"][-(lm.max_length - rules.most) :]
    if not tokens:
        return NoAnswer("the prompt has no token")
    return Prompt(str(instance.task_name), text, tuple(tokens), rules)


class _Writing:
    """Some rows while they are written."""

    def __init__(self, decoder: Decoder, stops: Stops, rows: list[_Row]) -> None:
        self._decoder = decoder
        self._stops = stops
        self._rows = rows
        self._texts: list[list[int]] = [[] for _ in rows]
        self._ended: set[int] = set()

    def run(self, plan: RowPlan, meter: Meter) -> list[str]:
        """Write all texts."""
        live = Rows(self._decoder, plan, meter)
        numbers = list(range(len(self._rows)))
        going = self._write(live.read_prompts(), numbers)
        while going:
            if len(going) <= _COMPACT * len(numbers):
                live.keep(going)
                numbers = [numbers[place] for place in going]
            logits = live.add([self._texts[number][-1] for number in numbers])
            going = self._write(logits, numbers)
        return [
            self._stops.text(tokens, row.rules)
            for tokens, row in zip(self._texts, self._rows, strict=True)
        ]

    def _write(self, logits: torch.Tensor, numbers: list[int]) -> list[int]:
        """Add a token to each text that is not complete; returns the places of those that go on."""
        likeliest = self._decoder.likeliest(logits)
        going = []
        for place, number in enumerate(numbers):
            if number in self._ended:
                continue
            row, text = self._rows[number], self._texts[number]
            token = likeliest[place]
            if row.rules.temperature > 0:
                token = draw(logits[place], row.rules, row.chances[len(text)])
            text.append(token)
            if self._stops.ended(text, row.rules):
                self._ended.add(number)
            else:
                going.append(place)
        return going
