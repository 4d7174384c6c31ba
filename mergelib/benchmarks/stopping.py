"""When a generated text ends, and which token comes next where that is drawn."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from mergelib.benchmarks.answers import NoAnswer

_NEUTRAL = {
    "_from_model_config",
    "bos_token_id",
    "cache_implementation",
    "eos_token_id",
    "do_sample",
    "max_length",
    "max_new_tokens",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
}
"""Settings of a model's generation_config.json that change nothing here, or are seen to."""

_TOP_K = 50
"""What transformers' own generation takes where nothing is said."""


@dataclass(frozen=True)
class Rules:
    """How one request's text is generated.

    Attributes:
        until: strings that end it, as lm-eval completes them.
        most: how many tokens it has at most.
        temperature: 0 for the likeliest token; otherwise tokens are drawn.
        top_k: only so many of the likeliest tokens are drawn from; 0 for all.
        top_p: only the likeliest tokens whose chances add up to this are drawn from.
    """

    until: tuple[str, ...]
    most: int
    temperature: float
    top_k: int
    top_p: float


def read_rules(lm: HFLM, asked: dict[str, Any]) -> Rules | NoAnswer | None:
    """Read generation arguments as lm-eval does.

    Args:
        lm: knows the end-of-text token, the longest input and the model's own settings.
        asked: the request's arguments.

    Returns:
        The rules; None where something is asked for that only transformers' own generation does.
    """
    given: dict[str, Any] = dict(normalize_gen_kwargs(asked, lm.max_gen_toks))
    end = lm.eot_token_id
    eos = None if end is None else lm.tok_decode(end, skip_special_tokens=False)
    until = handle_stop_sequences(given.pop("until", None), eos=eos)
    most = given.pop("max_gen_toks")
    if most >= lm.max_length:
        return NoAnswer(
            f"max_gen_toks is {most}; the model takes {lm.max_length} tokens, prompt included"
        )
    own = {k: v for k, v in lm.model.generation_config.to_diff_dict().items() if v is not None}
    sample = bool(given.pop("do_sample", False))
    temperature = float(given.pop("temperature", 0.0))
    top_k = given.pop("top_k", own.get("top_k", _TOP_K))
    top_p = given.pop("top_p", own.get("top_p", 1.0))
    if given or set(own) - _NEUTRAL:
        return None
    if sample and temperature <= 0:
        return NoAnswer(f"do_sample with temperature {temperature:g}; it must be above 0")
    drawn = temperature if sample else 0.0
    return Rules(tuple(until), int(most), drawn, int(top_k or 0), float(top_p or 1.0))


class Stops:
    """Recognises the end of a text, token by token, as lm-eval's criteria do."""

    def __init__(self, lm: HFLM) -> None:
        """Take note of the tokens that end any text.

        Args:
            lm: decodes; its model's generation settings name tokens that end a text.
        """
        self._lm = lm
        ends = lm.model.generation_config.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())
        # Decoding that tidies spaces lets a token change the text before it.
        self._tidies = bool(getattr(lm.tokenizer, "clean_up_tokenization_spaces", False))
        self._lengths: dict[str, int] = {}
        self._pieces: dict[int, str] = {}

    def ended(self, tokens: list[int], rules: Rules) -> bool:
        """Whether a text is complete.

        Args:
            tokens: at least 1; the text was not complete without the last.
            rules: say what ends it.
        """
        if len(tokens) >= rules.most or tokens[-1] in self._ends:
            return True
        piece = self._piece(tokens[-1])
        return any(
            (self._tidies or self._may_complete(piece, stop)) and stop in self._lately(tokens, stop)
            for stop in rules.until
        )

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._lm.tok_decode([token], skip_special_tokens=False)
        return self._pieces[token]

    @staticmethod
    def _may_complete(piece: str, stop: str) -> bool:
        """Whether a token may hold the last character of a string, or a part of it."""
        return not stop or stop[-1] in piece or "\ufffd" in piece or stop[-1] == " "

    def _lately(self, tokens: list[int], stop: str) -> str:
        """The end of the text, as far back as lm-eval looks for a string."""
        if stop not in self._lengths:
            encoded = self._lm.tokenizer.encode(stop, add_special_tokens=False)
            self._lengths[stop] = len(encoded) + 2
        lately: str = self._lm.tok_decode(tokens[-self._lengths[stop] :], skip_special_tokens=False)
        return lately

    def text(self, tokens: list[int], rules: Rules) -> str:
        """The answer: decoded, and cut before the first string that ends it."""
        decoded = self._lm.tok_decode(tokens)
        text: str = postprocess_generated_text(decoded, list(rules.until), think_end_token=None)
        return text


def chances(seed: Sequence[Any], count: int) -> np.ndarray:
    """Numbers from 0 to 1 that a text's tokens are drawn by.

    Args:
        seed: plain values that tell the text from others.
        count: how many.
    """
    digest = hashlib.sha256(repr(tuple(seed)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little")).random(count)


def draw(logits: torch.Tensor, rules: Rules, chance: float) -> int:
    """Draw a token.

    Args:
        logits: [vocabulary].
        rules: temperature, top_k and top_p, in the order of transformers' own generation.
        chance: from 0 to 1; decides the token.
    """
    scores = (logits.float() / rules.temperature).sort(descending=True, stable=True)
    values = scores.values[: rules.top_k] if rules.top_k else scores.values
    shares = values.double().softmax(0)
    before = shares.cumsum(0) - shares
    shares = shares * (before < rules.top_p)
    sums = shares.cumsum(0)
    at = torch.searchsorted(sums, chance * sums[-1], right=True)
    # A rounding error must not lead past the last token that may be drawn.
    return int(scores.indices[min(int(at), int((shares > 0).sum()) - 1)])
