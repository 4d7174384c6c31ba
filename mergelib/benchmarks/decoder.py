"""A transformers model's own forward pass, over a cache and under masks of our own making.

Layers keep every column, sliding windows are part of the mask: so tokens may lie in the cache in
any order, and one row may hold many texts. Which models this is right for is not a list of names:
what is known to need more is turned away by its configuration, and the rest is tried once.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from transformers.cache_utils import Cache, get_layer_types_and_kwargs

from mergelib.benchmarks.columns import Columns
from mergelib.benchmarks.prefixes import Pack
from mergelib.benchmarks.products import Products

Mask = torch.Tensor | dict[str, torch.Tensor]
"""What is added to attention scores, [rows, 1, queries, columns]; for a model with layers of two
kinds, a mask for each kind."""

_FULL, _SLIDING = "full_attention", "sliding_attention"

NOT_POSSIBLE = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)
"""What a forward pass raises when it does not take such caches or masks."""


class Decoder:
    """A causal language model that is asked for logits.

    Attributes:
        model: the model.
        config: of its text layers.
        products: how its linear layers multiply.
        shares: whether new tokens of all rows may see one copy of what the rows begin with.
        column_bytes: how much memory a cache takes for each column of a row.
    """

    def __init__(self, model: Any) -> None:
        """Look at a model's configuration.

        Args:
            model: any model of transformers; see `obstacle` for whether it can be asked.
        """
        self.model = model
        self.config = model.config.get_text_config()
        self.products = Products(model)
        self._takes = set(inspect.signature(model.forward).parameters)
        self._window: int | None = None
        self._kinds: set[str] = set()
        self._layers = 0
        self.shares = False
        self.column_bytes = 1

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        device: torch.device = self.model.device
        return device

    def obstacle(self) -> str | None:
        """Why the model's configuration says that it cannot be asked this way; None if it can."""
        config = self.config
        if self.model.config.is_encoder_decoder:
            return "it is no decoder-only model"
        if getattr(self.model, "_is_stateful", False):
            return "it keeps a state that is no attention cache"
        if "position_ids" not in self._takes or getattr(config, "alibi", False):
            return "it does not take position ids"
        if config._attn_implementation not in ("sdpa", "eager"):
            return f"its attention is {config._attn_implementation}"
        rotary = set(_values(getattr(config, "rope_parameters", None), "rope_type"))
        if rotary & {"dynamic", "longrope"}:
            return f"its rotary embedding is {', '.join(sorted(rotary))}"
        try:
            kinds, settings = get_layer_types_and_kwargs(config)
        except NOT_POSSIBLE as error:
            return f"its layers are not known: {one_line(error)}"
        self._kinds, self._layers = set(kinds), len(kinds)
        if unknown := self._kinds - {_FULL, _SLIDING}:
            return f"its layers are {', '.join(sorted(unknown))}"
        windows = {setting["sliding_window"] for setting in settings if setting}
        if len(windows) > 1 or None in windows:
            return "its layers have windows of several sizes"
        self._window = windows.pop() if windows else None
        return None

    @property
    def may_share(self) -> bool:
        """Whether it is worth trying to let rows share a beginning.

        Only on processors, where reading the cache is what a new token's attention costs. Windows
        would cut the beginning.
        """
        on_cpu = self.device.type == "cpu" and self.model.dtype == torch.float32
        return on_cpu and self.config._attn_implementation == "sdpa" and not self.has_window

    def rows(self, columns: int) -> int:
        """How many rows of `columns` columns a cache may have, so that it leaves memory to others.

        Depends on the machine's memory alone, not on how much of it is free at the moment: batches
        are to be the same whenever a search is run.
        """
        if self.device.type == "cuda":
            memory = int(torch.cuda.get_device_properties(self.device).total_memory)
        else:
            memory = psutil.virtual_memory().total
        return max(1, memory // 4 // (columns * self.column_bytes))

    def cache(self, capacity: int) -> Cache:
        """An empty cache of `capacity` columns."""
        return Cache(layers=[Columns(capacity) for _ in range(self._layers)])

    def mask(self, visible: torch.Tensor, distance: torch.Tensor | None = None) -> Mask:
        """A mask as the model's layers take it.

        Args:
            visible: [rows, 1, queries, columns], whether a query sees a column.
            distance: by how many positions the query is further on, of a shape that broadcasts to
                that of `visible`; only needed where layers have a window.
        """
        masks = {}
        for kind in self._kinds:
            seen = visible
            if kind == _SLIDING and distance is not None and self._window is not None:
                seen = visible & (distance < self._window)
            hidden = torch.finfo(self.model.dtype).min
            mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
            masks[kind] = mask.masked_fill_(~seen, hidden)
        return masks if len(masks) > 1 else next(iter(masks.values()))

    @property
    def has_window(self) -> bool:
        """Whether some layer sees only the last positions."""
        return self._window is not None

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: Mask,
        cache: Cache,
        reads: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits [rows, reads, vocabulary] of tokens, which are added to the cache.

        Args:
            tokens: [rows, n].
            positions: [rows, n].
            mask: over all columns of the cache, the new ones included.
            cache: see `cache`.
            reads: the numbers of the tokens that logits are wanted of; None for all.
        """
        more = {}
        if reads is not None and "logits_to_keep" in self._takes:
            more["logits_to_keep"] = reads
        logits: torch.Tensor = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **more,
        ).logits
        return logits if reads is None or more else logits[:, reads]

    @staticmethod
    def likeliest(logits: torch.Tensor) -> list[int]:
        """The token [rows] that each row of logits [rows, vocabulary] makes the likeliest."""
        tokens: list[int] = logits.argmax(1).tolist()
        return tokens

    @staticmethod
    def chances(
        logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How likely tokens are, and whether they are the likeliest.

        Args:
            logits: [reads, vocabulary].
            rows: [n], the row that a token is looked up in.
            tokens: [n].

        Returns:
            The logarithms of the chances [n], in float32; whether each is the largest [n].
        """
        logits = logits.float()
        chances = logits[rows, tokens] - logits.logsumexp(1)[rows]
        return chances, logits.argmax(1)[rows] == tokens

    def read(self, pack: Pack, cache: Cache) -> torch.Tensor:
        """Logits [reads, vocabulary] of a pack behind the trunk that the cache holds."""
        for layer in cache.layers:
            layer.filled = pack.start
        positions = pack.positions
        distance = None
        if self.has_window:
            distance = positions[pack.start :, None] - positions
        mask = self.mask(pack.visible()[None, None], distance)
        own = positions[None, pack.start :]
        return self.forward(pack.tokens, own, mask, cache, pack.reads)[0]


def _values(settings: Any, name: str) -> Iterator[str]:
    """All values that a name has in nested dictionaries."""
    if isinstance(settings, dict):
        if name in settings:
            yield str(settings[name])
        for value in settings.values():
            yield from _values(value, name)


def one_line(error: BaseException) -> str:
    """An error's message, cut to fit in a line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
