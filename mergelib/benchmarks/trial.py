"""Whether a model gives the same logits, asked our way, as with whole texts and no cache."""

from collections.abc import Callable

import torch

from mergelib.benchmarks.answers import Meter
from mergelib.benchmarks.decoder import NOT_POSSIBLE, Decoder, one_line
from mergelib.benchmarks.prefixes import Span, lay_out
from mergelib.benchmarks.rows import Rows, plan_rows

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUGH_TOLERANCE = 0.05
"""Relative error of the logits; types of 16 bits differ by percents between kernels."""

_CAPACITY = 14
"""Tokens in a pack: few, so that there are several."""


@torch.inference_mode()
def obstacle(decoder: Decoder) -> str | None:
    """Why a model's answers cannot be computed our way; None where they can.

    What the configuration does not tell is tried with the model's weights of the moment, on a few
    tokens. Also finds out whether rows can share a beginning, and how large a cache is.

    Args:
        decoder: the model.
    """
    known = decoder.obstacle()
    if known is not None:
        return known
    failed = _compare(decoder, _packed) or _compare(decoder, _grown)
    if failed is not None:
        return failed
    decoder.shares = decoder.may_share
    if decoder.shares and _compare(decoder, _grown) is not None:
        decoder.shares = False
    return None


def _texts(decoder: Decoder) -> list[tuple[int, ...]]:
    """Texts that begin alike, two of them further than the others."""
    tokens = [n * 7919 % decoder.config.vocab_size for n in range(3, 30)]
    trunk, one = tokens[:6], tokens[6:12]
    endings = (tokens[12:16], [*one, *tokens[16:19]], [*one, tokens[19]], tokens[20:27])
    return [(*trunk, *ending) for ending in endings]


def _packed(decoder: Decoder, texts: list[tuple[int, ...]]) -> torch.Tensor:
    layout = lay_out([Span(text, 2) for text in texts], _CAPACITY, decoder.device)
    cache = decoder.cache(layout.columns)
    logits = [decoder.read(pack, cache) for pack in layout.packs]
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    decoder.column_bytes = kept // layout.columns
    return torch.stack([logits[place.pack][place.rows.tolist()] for place in layout.places])


def _grown(decoder: Decoder, texts: list[tuple[int, ...]]) -> torch.Tensor:
    plan = plan_rows(decoder, [text[:-1] for text in texts], 1, _CAPACITY, least=1)
    rows = Rows(decoder, plan, Meter(decoder.model, 0))
    first = rows.read_prompts()
    return torch.stack([first, rows.add([text[-1] for text in texts])], dim=1)


def _compare(
    decoder: Decoder, ask: Callable[[Decoder, list[tuple[int, ...]]], torch.Tensor]
) -> str | None:
    """Hold the last two tokens' logits [texts, 2, vocabulary] to those of whole texts."""
    texts = _texts(decoder)
    try:
        with decoder.products.quick():
            answer = ask(decoder, texts).float()
        inputs = [torch.tensor([text], device=decoder.device) for text in texts]
        truth = torch.stack([decoder.model(i).logits[0, -2:] for i in inputs]).float()
    except torch.OutOfMemoryError:
        # Says nothing of the model; the slow way would take as much.
        raise
    except NOT_POSSIBLE as error:
        return f"a trial failed: {one_line(error)}"
    spread = (truth - truth.mean()).norm()
    off = float((truth - answer).norm() / spread) if spread > 0 else 0.0
    if not off <= _TOLERANCE.get(decoder.model.dtype, _ROUGH_TOLERANCE):
        return f"a trial's logits are off by {100 * off:.2g} %"
    return None
