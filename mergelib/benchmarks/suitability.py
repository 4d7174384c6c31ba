"""Whether items and tokenizer suit a model: which prompts are cut, and what pads texts."""

import copy
from collections.abc import Iterable
from typing import Any

from lm_eval.models.huggingface import HFLM

from mergelib.benchmarks.answers import NoAnswer
from mergelib.benchmarks.items import Item
from mergelib.benchmarks.stopping import Rules, read_rules


def padding_tokenizer(tokenizer: Any) -> tuple[Any, str | None]:
    """A copy of a tokenizer that has a token to fill short texts up with.

    lm-eval would give the tokenizer itself one, which would be exported with the merged model, and
    where it finds none it would add one that the model has no embedding for.

    Args:
        tokenizer: stays as it is.

    Returns:
        The copy, and a line on what stands in; None where the tokenizer has a pad token.
    """
    own = copy.deepcopy(tokenizer)
    if own.pad_token_id is not None:
        return own, None
    stand_in = own.unk_token or own.eos_token or own.bos_token or own.convert_ids_to_tokens(0)
    own.pad_token = stand_in
    return own, (
        f"the tokenizer has no pad token; {stand_in!r} stands in while models answer, and merged "
        "models have none either"
    )


def cut_items(items: Iterable[Item], lm: HFLM) -> list[Item]:
    """The items that are longer than the model's context: lm-eval cuts their prompts on the left.

    Args:
        items: of any kind but rolling, which is read in windows.
        lm: encodes, and knows the longest input.
    """
    return [item for item in items if _is_cut(item, lm)]


def unanswerable(items: Iterable[Item], lm: HFLM) -> str | None:
    """Why no item at all can be answered: as generation settings that leave no room do.

    Args:
        items: of one benchmark.
        lm: knows the longest input.
    """
    requests = [item.instances[0] for item in items]
    if any(request.request_type != "generate_until" for request in requests):
        return None
    settings = {repr(request.args[1]): request.args[1] for request in requests}
    read = [read_rules(lm, asked) for asked in settings.values()]
    reasons = [rules.reason for rules in read if isinstance(rules, NoAnswer)]
    return reasons[0] if len(reasons) == len(read) else None


def _is_cut(item: Item, lm: HFLM) -> bool:
    kind = item.instances[0].request_type
    if kind == "loglikelihood_rolling":
        return False
    if kind == "generate_until":
        text, asked = item.instances[0].args
        rules = read_rules(lm, asked)
        if isinstance(rules, NoAnswer):
            return False  # it is not asked at all, and the response says why
        most = rules.most if isinstance(rules, Rules) else int(asked.get("max_gen_toks", 0))
        return _longer(text, lm.max_length - most, lm)
    return any(_longer("".join(i.args), lm.max_length + 1, lm) for i in item.instances)


def _longer(text: str, tokens: int, lm: HFLM) -> bool:
    # A token is at least a byte: most texts need not be encoded to know.
    return len(text.encode()) >= tokens and len(lm.tokenizer(text)["input_ids"]) > tokens
