"""Random models of several architectures, tasks for them, and what lm-eval makes of both."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mergelib.benchmarks.items import Benchmark, Item
from mergelib.checkpoints import Checkpoint
from mergelib.merging.resident import ResidentModel

WORDS = ["red", "blue", "green", "big", "small", "old", "new", "cat", "dog"]
WORDS += ["bird", "house", "tree", "river", "runs", "sees", "likes", "has"]

CHAT = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)

SIZE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 400,
    # Far from ties: kernels that differ in the last bits must not choose other tokens.
    "initializer_range": 0.25,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WINDOW = 20

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_key_value_heads": 4}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": None}),
    "qwen3_moe": (
        "Qwen3Moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 12},
    ),
    "gemma2": ("Gemma2", {"sliding_window": WINDOW, "head_dim": 16, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3", {"sliding_window": WINDOW, "head_dim": 16, "query_pre_attn_scalar": 16}),
    "gpt2": ("GPT2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 400}),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4}),
    "mamba": ("Mamba", {"state_size": 4}),
    "longrope": (
        "Phi3",
        {
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 6,
                "long_factor": [2.0] * 6,
                "partial_rotary_factor": 1.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
}

COMMON = """\
dataset_path: json
dataset_kwargs: {{data_files: {{dev: {folder}/dev.jsonl, test: {folder}/test.jsonl}}}}
test_split: test
fewshot_split: dev
num_fewshot: {shots}
task: {name}
"""
CHOICE = """\
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
TEXT = """\
output_type: generate_until
doc_to_text: "{{question}}\\nAnswer:"
doc_to_target: letter
generation_kwargs: {do_sample: false, max_gen_toks: 24, until: ["ee", "\\n", "bird"]}
filter_list:
  - name: letter
    filter: [{function: regex, regex_pattern: "([a-z])"}, {function: take_first}]
metric_list: [{metric: exact_match}]
"""
ROLLING = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{page}}"
metric_list: [{metric: bits_per_byte}]
"""
TASKS = {
    "choice_0": (CHOICE, 0),
    "choice_5": (CHOICE, 5),
    "text": (TEXT, 2),
    "rolling": (ROLLING, 0),
}


class Truth(NamedTuple):
    """A task's items and what lm-eval's own evaluation says about each."""

    benchmark: Benchmark
    samples: list[dict[str, Any]]

    @property
    def items(self) -> list[Item]:
        return list(self.benchmark.items)


def _sentence(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of task files, one for each of `TASKS`."""
    folder = tmp_path_factory.mktemp("tasks")
    draw = random.Random(5)
    for split, count in (("dev", 8), ("test", 12)):
        lines = []
        for _ in range(count):
            # One-token answers among longer ones, and two that begin alike.
            first = _sentence(draw, 1, 1)
            choices = [first, first + " " + _sentence(draw, 1, 2), _sentence(draw, 1, 4)]
            line = {
                "question": _sentence(draw, 6, 14) + "?",
                "choices": choices,
                "gold": draw.randrange(len(choices)),
                "letter": draw.choice("abcdeghilnorstuw"),
                "page": _sentence(draw, 2, 300),
            }
            lines.append(json.dumps(line))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, (text, shots) in TASKS.items():
        common = COMMON.format(folder=folder, shots=shots, name=name)
        (folder / f"{name}.yaml").write_text(common + text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ResidentModel]:
    """Opens a random model of an architecture; the same object each time."""
    opened: dict[str, ResidentModel] = {}

    def tokenizer(bos: bool) -> PreTrainedTokenizerFast:
        built = Tokenizer(models.BPE())
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        built.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        draw = random.Random(1)
        built.train_from_iterator(
            (_sentence(draw, 5, 9) + "?\nAnswer:" for _ in range(99)), trainer
        )
        if bos:
            built.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", 1)]
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=built,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            chat_template=CHAT,
        )

    def build(architecture: str) -> ResidentModel:
        if architecture not in opened:
            name, settings = ARCHITECTURES[architecture]
            words = tokenizer(bos=architecture in ("llama", "mistral", "gemma2"))
            config_name = f"{name}TextConfig" if name == "Gemma3" else f"{name}Config"
            config = getattr(transformers, config_name)(
                **{**SIZE, "vocab_size": len(words), **settings}
            )
            torch.manual_seed(3)
            folder = tmp_path_factory.mktemp(architecture)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            words.save_pretrained(folder)
            opened[architecture] = ResidentModel(Checkpoint(architecture, folder), "cpu", "float32")
        return opened[architecture]

    return build


@pytest.fixture(scope="session")
def truth(open_model: Callable[..., ResidentModel], tasks: Path) -> Callable[..., Truth]:
    """What `simple_evaluate` says of a random model's answers to one of the tasks."""
    known: dict[tuple[str, bool], dict[str, Any]] = {}

    def ask(architecture: str, name: str, chat: bool = False) -> Truth:
        resident = open_model(architecture)
        model = HFLM(pretrained=resident.model, tokenizer=resident.tokenizer, batch_size=5)
        manager = TaskManager(include_defaults=False)
        template: dict[str, Any] = (
            {"apply_chat_template": True, "fewshot_as_multiturn": True} if chat else {}
        )
        if (architecture, chat) not in known:
            names = [n for n in TASKS if not (chat and n in ("rolling", "choice_0"))]
            known[architecture, chat] = simple_evaluate(
                model=model,
                tasks=[str(tasks / f"{n}.yaml") for n in names],
                task_manager=manager,
                bootstrap_iters=0,
                **template,
            )
        task = manager.load([str(tasks / f"{name}.yaml")])["tasks"][name]
        task.set_fewshot_seed(1234)
        if chat:
            template["chat_template"] = model.apply_chat_template
            template["tokenizer_name"] = model.chat_template(True)
        task.build_all_requests(rank=0, world_size=1, **template)
        samples = known[architecture, chat]["samples"][name]
        items = [
            _item(f"{name} {chat} {sample['doc_id']}", sample["doc"], task.instances, sample)
            for sample in samples
        ]
        metric = next(iter(task.higher_is_better()))
        first = task._filters[0].name
        return Truth(Benchmark(name, task, metric, first, True, tuple(items)), samples)

    return ask


def _item(digest: str, doc: dict[str, Any], instances: list[Any], sample: dict[str, Any]) -> Item:
    own = tuple(i for i in instances if i.doc_id == sample["doc_id"])
    return Item(f"test/{sample['doc_id']}", "search", doc, "", own, "", digest)
