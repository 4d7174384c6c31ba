"""What an item's requests are answered with, and what that costs."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mergelib.time_limit import TimeLimit


class NoAnswer(NamedTuple):
    """In the place of an answer that there cannot be.

    Attributes:
        reason: why, in one line.
    """

    reason: str


RawAnswers = list[list[Any]]
"""For each item and each of its requests, what lm-eval's back end returns, repeats included: a
`NoAnswer` where it would stop."""


@dataclass
class Spending:
    """What answering cost.

    Attributes:
        tokens: positions that went through the model, padding included.
        flops: 2 x parameters x tokens for the weights, and 4 x layers x width x context x tokens
            for attention (Kaplan et al. 2020, table 1, forward pass).
    """

    tokens: int = 0
    flops: float = 0.0


class Meter:
    """Counts what goes through one model."""

    def __init__(self, model: Any, parameters: int, limit: TimeLimit | None = None) -> None:
        """Read a model's size.

        Args:
            model: the transformers model.
            parameters: how many it has.
            limit: until when something may go through it.
        """
        self._limit = limit
        config = model.config.get_text_config()
        self._parameters = parameters
        self._attention = 4 * config.num_hidden_layers * config.hidden_size
        self.spent = Spending()

    def count(self, tokens: int, depths: float) -> None:
        """Add tokens.

        Args:
            tokens: how many went through the model.
            depths: the sum over them of how many tokens each sees, itself counted half.

        Raises:
            TooSlow: time is up. All that answers counts its tokens here.
        """
        if self._limit is not None:
            self._limit.check()
        self.spent.tokens += tokens
        self.spent.flops += 2 * self._parameters * tokens + self._attention * depths


class Job(Protocol):
    """Requests of a kind, made ready to be asked of one model's weights after the other's."""

    def answer(self, meter: Meter) -> list[Any]:
        """Ask them all: an answer for each, in order.

        Args:
            meter: counts what goes through the model.
        """
        ...
