"""Loglikelihoods of given texts: multiple choice, and whole documents in rolling windows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mergelib.benchmarks.answers import Meter, NoAnswer
from mergelib.benchmarks.decoder import Decoder
from mergelib.benchmarks.prefixes import Layout, Span, gather, lay_out


class Pair(NamedTuple):
    """A text and the tokens before it.

    Attributes:
        span: what goes through the model; its reads tell the chances of the text's tokens.
        text: the tokens whose likelihood is asked for.
    """

    span: Span
    text: list[int]


class _Targets(NamedTuple):
    """What is looked up in the logits of one pack, an entry for each token of a text.

    Attributes:
        rows: [n], the row of logits.
        tokens: [n], the token.
        requests: [n], the request that it counts for.
    """

    rows: torch.Tensor
    tokens: torch.Tensor
    requests: torch.Tensor


class Loglikelihoods:
    """Requests for loglikelihoods, laid out once; asked of any weights."""

    def __init__(
        self,
        decoder: Decoder,
        requests: Sequence[Sequence[Pair]],
        benchmarks: Sequence[str],
        rolling: bool,
        capacity: int,
    ) -> None:
        """Lay requests out.

        Args:
            decoder: the model.
            requests: the pairs of each request, whose loglikelihoods add up.
            benchmarks: the name of each request's benchmark: prompts of one begin alike.
            rolling: whether only loglikelihoods are wanted.
            capacity: how many tokens may go through the model together; one text alone may be
                longer.
        """
        self._decoder = decoder
        self._capacity = capacity
        self._rolling = rolling
        self._count = len(requests)
        named: dict[str, list[tuple[int, Pair]]] = {}
        for number, (pairs, name) in enumerate(zip(requests, benchmarks, strict=True)):
            named.setdefault(name, []).extend((number, pair) for pair in pairs)
        self._groups = gather(named.values(), lambda entry: entry[1].span.tokens)
        self._lay_out()

    def _lay_out(self) -> None:
        self._laid_out = []
        for pairs in self._groups:
            spans = [pair.span for _, pair in pairs]
            layout = lay_out(spans, self._capacity, self._decoder.device)
            self._laid_out.append((layout, self._targets(layout, pairs)))

    def _targets(self, layout: Layout, pairs: Sequence[tuple[int, Pair]]) -> list[_Targets]:
        entries: list[list[tuple[int, int, int]]] = [[] for _ in layout.packs]
        for place, (request, (_, text)) in zip(layout.places, pairs, strict=True):
            rows = place.rows.tolist()
            entries[place.pack] += [(r, t, request) for r, t in zip(rows, text, strict=True)]
        tensors = [torch.tensor(e, device=self._decoder.device).unbind(1) for e in entries]
        return [_Targets(*columns) for columns in tensors]

    def answer(self, meter: Meter) -> list[Any]:
        """Ask the model.

        Args:
            meter: counts what goes through the model.

        Returns:
            For each request (loglikelihood, whether greedy decoding would write the text); of
            rolling windows the loglikelihood alone.
        """
        while True:
            try:
                with self._decoder.products.quick():
                    return self._answer(meter)
            except torch.OutOfMemoryError:
                if self._capacity < 2:
                    raise
            self._capacity = min(self._capacity, self._longest()) // 2
            self._lay_out()

    def _longest(self) -> int:
        return max(pack.tokens.shape[1] for layout, _ in self._laid_out for pack in layout.packs)

    def _answer(self, meter: Meter) -> list[Any]:
        device = self._decoder.device
        total = torch.zeros(self._count, dtype=torch.float64, device=device)
        misses = torch.zeros(self._count, dtype=torch.int64, device=device)
        for layout, targets in self._laid_out:
            cache = self._decoder.cache(layout.columns)
            for pack, (rows, tokens, requests) in zip(layout.packs, targets, strict=True):
                logits = self._decoder.read(pack, cache)
                meter.count(pack.tokens.shape[1], pack.depths)
                chances, hits = self._decoder.chances(logits, rows, tokens)
                total.index_add_(0, requests, chances.double())
                misses.index_add_(0, requests, (~hits).long())
        sums, greedy = total.tolist(), (misses == 0).tolist()
        return sums if self._rolling else list(zip(sums, greedy, strict=True))


def read_pair(lm: HFLM, context: str, text: str) -> Pair | NoAnswer:
    """Encode a context and its continuation, as lm-eval's `loglikelihood` does.

    Args:
        lm: encodes, and knows the longest input.
        context: may be empty: then the tokenizer's first token stands for it.
        text: whose likelihood is asked for.
    """
    if context:
        before, tokens = lm._encode_pair(context, text)
    else:
        before, tokens = [lm.prefix_token_id], lm.tok_encode(text, add_special_tokens=False)
        if tokens[:1] == before:
            before, tokens = tokens[:1], tokens[1:]
    if not tokens:
        return NoAnswer(f"the answer {text!r} has no token of its own")
    if not before:
        return NoAnswer("the prompt has no token")
    if len(tokens) > lm.max_length:
        return NoAnswer(
            f"the answer has {len(tokens)} tokens; the model takes {lm.max_length} at a time"
        )
    return Pair(_span(lm, before, tokens), tokens)


def read_windows(lm: HFLM, text: str) -> list[Pair]:
    """Cut a text into windows, as lm-eval's `loglikelihood_rolling` does.

    Args:
        lm: encodes, and knows the longest input.
        text: without any tokens there are no windows.
    """
    cut = get_rolling_token_windows(
        token_list=lm.tok_encode(text),
        prefix_token=lm.prefix_token_id,
        max_seq_len=lm.max_length,
        context_len=1,
    )
    return [
        Pair(_span(lm, before, tokens), tokens) for before, tokens in map(make_disjoint_window, cut)
    ]


def _span(lm: HFLM, before: list[int], tokens: list[int]) -> Span:
    """The input that a text's likelihood is read from: what is too long is cut on the left."""
    whole = (before + tokens)[-(lm.max_length + 1) :]
    return Span(tuple(whole[:-1]), len(tokens))
