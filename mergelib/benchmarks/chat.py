"""Prompts in a model's chat template, as lm-eval's own back end puts them."""

from collections.abc import Iterable
from typing import Any

import jinja2
from transformers import AutoTokenizer

from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError


class ChatTemplate:
    """A tokenizer's chat template, in the form that lm-eval's tasks call."""

    def __init__(self, tokenizer: Any) -> None:
        """Keep the tokenizer.

        Args:
            tokenizer: has a chat template.
        """
        self._tokenizer = tokenizer

    def __call__(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Write a conversation down.

        Args:
            chat_history: turns, each with its role and content.
            add_generation_prompt: whether a new turn of the assistant is opened, or its last one
                goes on.
        """
        try:
            return self._write(chat_history, add_generation_prompt)
        except jinja2.TemplateError:
            # As in lm-eval: some templates know no system prompt.
            turns = [turn for turn in chat_history if turn["role"] != "system"]
            return self._write(turns, add_generation_prompt)

    def _write(self, turns: list[dict[str, str]], opened: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=opened,
            continue_final_message=not opened,
        )
        return text


def chat_template_of(checkpoints: Iterable[Checkpoint], key: str) -> ChatTemplate:
    """The chat template of the first model that has one: base models often have none.

    Args:
        checkpoints: models of one vocabulary.
        key: the search file's key, for error messages.

    Raises:
        InputError: none of them has one.
    """
    names = []
    for checkpoint in checkpoints:
        names.append(checkpoint.reference)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code
            )
        except (ValueError, OSError):
            continue  # a model without a tokenizer: the others' is used
        if tokenizer.chat_template:
            return ChatTemplate(tokenizer)
    raise InputError(f"{key}: no tokenizer of {', '.join(names)} has a chat template")
