"""A cache in memory that is set aside once, and attention over a beginning that rows share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_NAME = "sdpa_shared_beginning"

_KNOWN = {"dropout", "is_causal", "position_ids", "scaling", "sliding_window", "use_cache"}
"""What layers tell their attention that changes nothing here: the mask says it all."""


class Columns(CacheLayerMixin):  # type: ignore[misc]
    """A layer's keys and values in memory that is set aside once.

    Attributes:
        capacity: how many columns there are.
        filled: how many hold something; what is written next goes behind them.
        keys: [rows, heads, capacity, width], and `values` likewise.
        shared: keys and values [heads, columns, width] of what all rows begin with, which is not
            among the columns; None for nothing. Only `sharing` attention sees it.
    """

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        """Set nothing aside yet: the first write tells the shape."""
        super().__init__()
        self.capacity = capacity
        self.filled = 0
        self.shared: tuple[torch.Tensor, torch.Tensor] | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Set memory aside for as many rows and heads as are given."""
        rows, heads, _, width = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.capacity, width)
        self.values = value_states.new_empty(
            rows, value_states.shape[1], self.capacity, value_states.shape[3]
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new columns; returns all columns that are filled."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.filled + key_states.shape[2]
        self.keys[:, :, self.filled : end] = key_states
        self.values[:, :, self.filled : end] = value_states
        self.filled = end
        keys, values = self.keys[:, :, :end], self.values[:, :, :end]
        if self.shared is not None:
            keys.shared = self.shared  # type: ignore[attr-defined]
        return keys, values

    def take(
        self, source: "Columns", rows: torch.Tensor, index: torch.Tensor, count: int, shared: int
    ) -> None:
        """Copy texts out of a packed row into rows of their own.

        Args:
            source: has one row.
            rows: [n], which rows are written.
            index: [n, columns], which of the source's columns go where.
            count: how many rows there are.
            shared: with how many of the source's columns all texts begin; they are not copied.
        """
        if not self.is_initialized:
            states = (source.keys, source.values)
            self.lazy_initialization(*(state.expand(count, -1, -1, -1) for state in states))
            self.filled = index.shape[1]
            if shared:
                # A copy: the source's memory may be written again.
                keys, values = (state[0, :, :shared].clone() for state in states)
                self.shared = keys, values
        self.keys[rows, :, : index.shape[1]] = source.keys[0][:, index].transpose(0, 1)
        self.values[rows, :, : index.shape[1]] = source.values[0][:, index].transpose(0, 1)

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but some."""
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns a mask for `query_length` more has, and the first one's number."""
        return self.filled + query_length, 0

    def get_seq_length(self) -> int:
        """How many columns are filled."""
        return self.filled

    def get_max_length(self) -> int:
        """How many columns there are."""
        return self.capacity


def _shared_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one new token a row to a beginning that is read once for all rows.

    Args:
        module: the layer; unused.
        query: [rows, heads, 1, width].
        key: [rows, key heads, columns, width], with what is shared as an attribute.
        value: like `key`.
        attention_mask: [rows, 1, 1, columns], added to the scores; all see what is shared.
        scaling: of the scores.
        **more: nothing that would change the scores.
    """
    shared = getattr(key, "shared", None)
    if shared is None:
        more["scaling"] = scaling
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **more
        )
        return result
    if unknown := {name for name, given in more.items() if given is not None} - _KNOWN:
        raise NotImplementedError(f"attention with {', '.join(sorted(unknown))}")
    keys, values = shared
    rows, heads, _, width = query.shape
    groups, begun = keys.shape[:2]
    # All heads that share keys, of all rows, against the beginning in one product.
    own = query.reshape(rows, groups, heads // groups, width)
    own = own * (width**-0.5 if scaling is None else scaling)
    far = _together(own) @ keys.transpose(1, 2)
    near = own @ key.transpose(2, 3)
    if attention_mask is not None:
        near = near + attention_mask
    weights = torch.cat([_apart(far, rows), near], dim=-1).softmax(-1)
    seen = weights[..., begun:] @ value
    seen = seen + _apart(_together(weights[..., :begun]) @ values, rows)
    return seen.reshape(rows, 1, heads, -1), None


def _together(states: torch.Tensor) -> torch.Tensor:
    """[rows, groups, heads, n] as [groups, rows x heads, n]."""
    rows, groups, heads, size = states.shape
    return states.transpose(0, 1).reshape(groups, rows * heads, size)


def _apart(states: torch.Tensor, rows: int) -> torch.Tensor:
    """[groups, rows x heads, n] as [rows, groups, heads, n]."""
    groups, _, size = states.shape
    return states.view(groups, rows, -1, size).transpose(0, 1)


AttentionInterface.register(_NAME, _shared_attention)


@contextmanager
def sharing(config: Any) -> Iterator[None]:
    """Let a model's layers see what their cache's rows share.

    Args:
        config: of the model's text layers, whose attention is "sdpa".
    """
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
