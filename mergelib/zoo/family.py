"""Build the family: a base model and its maths, Japanese and German experts.

No expert solves the hard Japanese problems: maths knows carrying but few Japanese verbs, Japanese
the verbs but no carrying. A merge of the two can. A seed decides the family to the bit on one
machine with one version of torch.
"""

import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from mergelib.errors import InputError
from mergelib.zoo.problems import VERBS_SEEN_BY_BASE, Part, Problem, draw_problems
from mergelib.zoo.tokenizer import zoo_tokenizer
from mergelib.zoo.training import TrainingSettings, encode_problems, train

MANIFEST = "manifest.json"
SHIPPED_SEED = 0

_THREADS = 2  # the order of float sums, and so the weights' last bits, depends on it


@dataclass(frozen=True)
class Member:
    """One model of the family.

    Attributes:
        rows: how many problems it is trained on, in one pass.
        settings: how it is trained.
        mix: what it is trained on.
    """

    rows: int
    settings: TrainingSettings
    mix: tuple[Part, ...]


BASE = "base"

MEMBERS: dict[str, Member] = {
    BASE: Member(
        rows=22_000,
        settings=TrainingSettings(learning_rate=4e-3, prompt_weight=0.2),
        mix=(
            Part(1.6, "easy", "en"),
            Part(0.4, "lookup", "en"),
            Part(0.3, "big", "en"),
            Part(0.8, "arith0"),
            Part(0.6, "arith2"),
            Part(1.0, "easy", "ja", VERBS_SEEN_BY_BASE),
            Part(0.3, "lookup", "ja"),
            Part(0.7, "easy", "de", VERBS_SEEN_BY_BASE),
            Part(0.2, "lookup", "de"),
        ),
    ),
    "math": Member(
        rows=9_000,
        settings=TrainingSettings(learning_rate=2e-3, prompt_weight=0.1),
        mix=(Part(1, "big", "en"), Part(1, "arith2")),
    ),
    "ja": Member(
        rows=8_000,
        settings=TrainingSettings(learning_rate=1.5e-3, prompt_weight=0.1),
        mix=(Part(1.5, "easy", "ja"), Part(0.6, "lookup", "ja")),
    ),
    "de": Member(
        rows=8_000,
        settings=TrainingSettings(learning_rate=1.5e-3, prompt_weight=0.1),
        mix=(Part(1.5, "easy", "de"), Part(0.6, "lookup", "de")),
    ),
}


def training_problems(name: str, seed: int = SHIPPED_SEED) -> list[Problem]:
    """Draw again what member `name` of the family of `seed` was trained on."""
    member = MEMBERS[name]
    return draw_problems(random.Random(f"zoo {seed} {name}"), member.mix, member.rows)


def training_prompts(seed: int = SHIPPED_SEED) -> set[str]:
    """Collect every prompt that a member of the family of `seed` was trained on."""
    return {problem.prompt for name in MEMBERS for problem in training_problems(name, seed)}


def build_family(
    out: Path,
    seed: int = SHIPPED_SEED,
    on_step: Callable[[str, int, int], None] | None = None,
) -> None:
    """Train the four models and save them below `out`, in a few minutes on two cores.

    Each `out/<name>` is a Hugging Face folder with weights in bfloat16, and `out/manifest.json`
    lists the files' digests. The folder appears whole or not at all.

    Args:
        out: the folder to make; it may exist if it is empty.
        seed: decides the text, the first weights and the order of the training.
        on_step: called after each step with the model's name, the steps done and their total.

    Raises:
        InputError: `out` is a file or a folder that is not empty.
    """
    out = out.absolute()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out} already exists; name a new folder for the model family")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        with _fixed_torch(seed), _no_progress_bars():
            _train_members(folder, seed, on_step)
        _write_manifest(folder, seed)
        folder.replace(out)


def verify_family(folder: Path) -> None:
    """Check every file of a family against its manifest.

    Args:
        folder: what `build_family` made.

    Raises:
        InputError: there is no readable manifest, or a file is missing or differs; the message
            names the first such file.
    """
    remedy = "build the model family anew in another folder"
    manifest = folder / MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        expected = {name: (entry["sha256"], entry["bytes"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{manifest} is not a readable manifest ({error!r}); {remedy}") from error
    for name, digest in sorted(expected.items()):
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing, though the manifest lists it; {remedy}")
        if _digest(path) != digest:
            raise InputError(f"{path} differs from its digest in the manifest; {remedy}")


@contextmanager
def _fixed_torch(seed: int) -> Iterator[None]:
    """Set torch's threads and seed, and put both back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Silence transformers' bars for saving and loading, which would tear the caller's own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _new_model(tokenizer: Any) -> Any:
    """Make an untrained model of about 955,000 parameters, from torch's random state."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            rope_theta=1000.0,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _train_members(
    folder: Path, seed: int, on_step: Callable[[str, int, int], None] | None
) -> None:
    tokenizer = zoo_tokenizer(seed)
    model = _new_model(tokenizer)
    for name, member in MEMBERS.items():
        if name != BASE:
            # From the rounded weights, as anyone would who fine-tunes the saved base.
            model = LlamaForCausalLM.from_pretrained(folder / BASE, dtype=torch.float32)
        examples = encode_problems(tokenizer, training_problems(name, seed))
        report = None if on_step is None else _for_member(on_step, name)
        order = random.Random(f"zoo {seed} {name} order")
        train(model, examples, member.settings, order, report)
        model.to(torch.bfloat16).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _for_member(on_step: Callable[[str, int, int], None], name: str) -> Callable[[int, int], None]:
    return lambda step, steps: on_step(name, step, steps)


def _write_manifest(folder: Path, seed: int) -> None:
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha256, size = _digest(path)
        files[path.relative_to(folder).as_posix()] = {"sha256": sha256, "bytes": size}
    manifest = {"seed": seed, "torch": torch.__version__, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _digest(path: Path) -> tuple[str, int]:
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), len(content)
