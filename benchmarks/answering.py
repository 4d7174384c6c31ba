"""Time answering: lm-eval's `simple_evaluate` and the fast path, on the same model object.

Usage: python -m benchmarks.answering [--model DIR] [--tasks FILE...] [--made NAME...] [--items N]
    [--json FILE]

Each row is one task, all its columns measured in the same run. `seconds_lm_eval` is one call of
lm-eval's `simple_evaluate`; `seconds` is the fast path from items to scores, the median of several
candidates, and `cpu_*` the processor time of the same work; `ratio_cpu` is of processor times,
which other work on the machine disturbs less. `setup_ms` is what goes into neither
forward passes nor reading their logits; `prepare_ms` is what the first candidate pays once for all.
`items_differ` counts items whose score is not the same, and `max_loglik_diff` is the largest
difference of a loglikelihood. `gemm_share` is the model's arithmetic in a second
as a share of what one large matrix product reaches here; embeddings are not counted, and the head
as if all tokens passed it. These three count processor time, on a GPU wall time.

Without a model it makes its own: a random Llama of 162 million parameters, a tokenizer, and two
5-shot tasks, multiple choice of 4 (`choice`) and generation of 64 tokens (`text`), with worked
answers of about that length in the prompt; `--made` takes one of them. One thread, float32.
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.models import SIZES
from benchmarks.rates import busy, gemm_rate, timed
from benchmarks.record import report
from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.decoder import Decoder
from mergelib.benchmarks.items import Benchmark, open_benchmark
from mergelib.benchmarks.rows import Rows
from mergelib.benchmarks.scoring import score
from mergelib.checkpoints import Checkpoint
from mergelib.merging.resident import ResidentModel
from mergelib.sections.objectives import Objective

SHOTS, CHOICES = 5, 4
BATCH_LM_EVAL = 16

COMMON = """\
dataset_path: json
dataset_kwargs: {{data_files: {{dev: {folder}/dev.jsonl, test: {folder}/test.jsonl}}}}
test_split: test
fewshot_split: dev
fewshot_config: {{sampler: first_n}}
num_fewshot: {shots}
"""
CHOICE = """\
task: five_shot_choice
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}]
"""
TEXT = """\
task: five_shot_text
output_type: generate_until
doc_to_text: "{{question}}\\nAnswer:"
doc_to_target: answer
generation_kwargs: {do_sample: false, max_gen_toks: 64, until: ["Question:"]}
metric_list: [{metric: exact_match}]
"""
MADE = {"choice": CHOICE, "text": TEXT}


def write_tasks(folder: Path, items: int) -> list[str]:
    """Write documents of made-up words and two task files."""
    draw = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(4000)]

    def text(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    for name, count in (("dev", 2 * SHOTS), ("test", 2 * items)):
        lines = []
        for _ in range(count):
            choices = [text(1, 6) for _ in range(CHOICES)]
            gold = draw.randrange(CHOICES)
            question = "Question: " + text(25, 45) + "?"
            # As long as the texts that are written, as worked answers in prompts are.
            worked = text(30, 45)
            lines.append({"question": question, "choices": choices, "gold": gold, "answer": worked})
        rows = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    paths = []
    for name, task in MADE.items():
        path = folder / f"{name}.yaml"
        path.write_text(task + COMMON.format(folder=folder, shots=SHOTS), encoding="utf-8")
        paths.append(str(path))
    return paths


def write_tokenizer(folder: Path, texts: Path, vocabulary: int) -> None:
    """Write a tokenizer that is trained on some documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(path) for path in sorted(texts.glob("*.jsonl"))], trainer)
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def lm_eval_samples(
    model: Any, tokenizer: Any, path: str, ids: list[int], batch: int = BATCH_LM_EVAL
) -> list[dict[str, Any]]:
    """lm-eval's own samples of some documents of a task file."""
    model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
    manager = TaskManager(include_defaults=False)
    (name,) = manager.load([path])["tasks"]
    samples: list[dict[str, Any]] = simple_evaluate(
        model=model,
        tasks=[path],
        task_manager=manager,
        samples={name: ids},
        bootstrap_iters=0,
    )["samples"][name]
    return samples


@contextmanager
def arithmetic(device: str) -> Iterator[list[float]]:
    """Collect the seconds of the model's own arithmetic: forward passes and logits."""
    clock = busy(device)
    spent: list[float] = []
    depth = 0

    def watched(work: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            start = clock()
            try:
                return work(*args, **kwargs)
            finally:
                depth -= 1
                if depth == 0:
                    spent.append(clock() - start)

        return call

    with ExitStack() as stack:
        for owner, name in (
            (Rows, "read_prompts"),
            (Rows, "add"),
            (Rows, "keep"),
            (Decoder, "read"),
        ):
            stack.enter_context(patch.object(owner, name, watched(getattr(owner, name))))
        for name in ("likeliest", "chances"):
            stack.enter_context(
                patch.object(Decoder, name, staticmethod(watched(getattr(Decoder, name))))
            )
        yield spent


def measure(
    resident: ResidentModel, path: str, items: int, repeats: int, peak: float
) -> dict[str, Any]:
    """One row: a task, asked both ways."""
    objective = Objective(benchmark=path, search_items=items)
    benchmark = open_benchmark(objective, "tasks", seed=0)
    asked = benchmark.pool("search")
    ids = [int(item.item_id.split("/")[1]) for item in asked]
    theirs = timed(lambda: lm_eval_samples(resident.model, resident.tokenizer, path, ids))
    answerer = Answerer(resident, "auto")
    device = resident.device.type
    with arithmetic(device) as spent_first:
        first = timed(lambda: candidate(answerer, benchmark, asked))
    runs, setups = [], []
    for _ in range(repeats):
        with arithmetic(device) as inside:
            runs.append(timed(lambda: candidate(answerer, benchmark, asked)))
        setups.append(runs[-1].own(device) - sum(inside))
    raw, spent, values = runs[0].result
    wall = statistics.median(run.wall for run in runs)
    cpu = statistics.median(run.cpu for run in runs)
    setup = statistics.median(setups)
    samples = {sample["doc_id"]: sample for sample in theirs.result}
    truth = [samples[number] for number in ids]
    kind = asked[0].instances[0].request_type
    looked_up = resident.model.get_input_embeddings().weight.numel()
    metric = [sample[benchmark.metric] for sample in truth]
    seconds = statistics.median(run.own(device) for run in runs)
    return {
        "task": benchmark.name,
        "kind": kind,
        "items": len(asked),
        "seconds_lm_eval": theirs.wall,
        "cpu_lm_eval": theirs.cpu,
        "seconds": wall,
        "cpu_seconds": cpu,
        "ratio": theirs.wall / wall,
        "ratio_cpu": theirs.cpu / cpu,
        "setup_ms": 1e3 * setup,
        "prepare_ms": 1e3 * (first.own(device) - sum(spent_first) - setup),
        "items_differ": sum(bool(a != b) for a, b in zip(values, metric, strict=True)),
        "max_loglik_diff": _largest_gap(raw, truth) if kind == "loglikelihood" else None,
        "tokens_per_second": spent.tokens / wall,
        "gemm_share": (spent.flops - 2 * looked_up * spent.tokens) / seconds / peak,
    }


def candidate(
    answerer: Answerer, benchmark: Benchmark, asked: list[Any]
) -> tuple[Any, Any, list[Any]]:
    """Ask and score: raw answers, what they cost, and the metric of each item."""
    raw, spent = answerer.answer(asked)
    return raw, spent, [response.value for response in score(benchmark, asked, raw)]


def _largest_gap(raw: list[Any], samples: list[dict[str, Any]]) -> float:
    return max(
        abs(answers[0][0] - float(theirs[0]))
        for item, sample in zip(raw, samples, strict=True)
        for answers, theirs in zip(item, sample["filtered_resps"], strict=True)
    )


def main() -> None:
    """Measure each task and print the table."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="folder of a model")
    parser.add_argument("--tasks", nargs="+", help="task files of lm-eval")
    parser.add_argument("--made", nargs="+", choices=MADE, default=list(MADE))
    parser.add_argument("--items", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = write_tasks(folder, given.items)
        own = [path for name, path in zip(MADE, made, strict=True) if name in given.made]
        tasks, model = given.tasks or own, given.model
        if model is None:
            model = folder / "model"
            torch.manual_seed(0)
            LlamaForCausalLM(LlamaConfig(**SIZES["162M"])).save_pretrained(model)
            write_tokenizer(model, folder, SIZES["162M"]["vocab_size"])
        resident = ResidentModel(Checkpoint(str(model), model), "cpu", "float32")
        peak = gemm_rate()
        rows = [measure(resident, task, given.items, given.repeats, peak) for task in tasks]
    report("answering", rows, given.json)


if __name__ == "__main__":
    main()
