"""A byte-level BPE of some 600 tokens, trained on the problems that it will encode."""

import random
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mergelib.zoo.problems import WORDINGS, Part, draw_problems

PAD, BOS, EOS = "<pad>", "<s>", "</s>"

# Japanese has no spaces, so BPE would learn whole sentences as one token: the particles, marks and
# fixed phrases stand alone.
_JAPANESE_CUTS = r"[はをのが。：]|持っています|ですか|何"


def train_tokenizer(texts: Iterable[str], vocabulary: int = 640) -> PreTrainedTokenizerFast:
    """Train the family's tokenizer.

    Digits stand alone, so that a number is read one place at a time. The post-processor puts bos
    before every text, so that each client (lm-eval too) sends the same ids without being told to.

    Args:
        texts: the training text.
        vocabulary: the largest number of tokens; less text than that leaves fewer.

    Returns:
        A tokenizer that pads on the left, with pad 0, bos 1 and eos 2.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.Split(Regex(_JAPANESE_CUTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def zoo_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on 6,000 problems of all three languages drawn with `seed`."""
    mix = [Part(1, kind, lang) for lang in WORDINGS for kind in ("lookup", "easy", "big")]
    problems = draw_problems(random.Random(f"zoo {seed} tokenizer"), mix, 6000)
    return train_tokenizer(problem.prompt + problem.answer for problem in problems)
