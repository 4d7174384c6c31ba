"""`mergeflow merge` as a user runs it: what it writes, and how it tells of bad input."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM

from flows.cli import main
from tests.conftest import DATA

ZOO = DATA / "zoo"


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> None:
    """No server: this command needs none."""


def dare_ties(**parameters: Any) -> dict[str, Any]:
    models = [
        {"model": str(ZOO / name), "parameters": {"weight": 0.5, "density": 0.6}}
        for name in ("ja", "math")
    ]
    return {
        "merge_method": "dare_ties",
        "base_model": str(ZOO / "base"),
        "models": models,
        "parameters": parameters,
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }


def linear(**more: Any) -> dict[str, Any]:
    models = [{"model": str(ZOO / name), "parameters": {"weight": 1.0}} for name in ("ja", "math")]
    return {"merge_method": "linear", "models": models, "dtype": "bfloat16", **more}


def write(folder: Path, content: Any) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def read_tree(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def in_a_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture
def mergeflow(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process; returns exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
        monkeypatch.setattr(sys, "argv", ["mergeflow", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


def test_two_processes_write_the_same_bytes(tmp_path):
    """DARE's masks, the order of tensors, and all files: nothing depends on a process's hashes."""
    recipe = write(tmp_path, dare_ties())
    for number in ("1", "2"):
        result = in_a_process(
            "merge", recipe, tmp_path / number, env={**os.environ, "PYTHONHASHSEED": number}
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"merged: {tmp_path / number}\n"
        assert result.stderr == ""
    first = read_tree(tmp_path / "1")
    assert first == read_tree(tmp_path / "2")
    assert first[Path("mergekit_config.yml")] == recipe.read_bytes()
    AutoModelForCausalLM.from_pretrained(tmp_path / "1")


def test_a_process_that_may_not_write_so_much_leaves_nothing(tmp_path):
    recipe = write(tmp_path, linear())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = in_a_process("merge", recipe, tmp_path / "out", preexec_fn=limit)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{tmp_path / 'out'}: File too large: about 1.9 MB are needed and ")
    assert line.endswith("are free; make room, or write to another disk")
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_options_are_handed_on(mergeflow, tmp_path):
    recipe = write(tmp_path, dare_ties())
    for name, seed in (("a", 3), ("b", 4)):
        code, out, errors = mergeflow("merge", recipe, tmp_path / name, "--seed", seed)
        assert (code, out, errors) == (0, f"merged: {tmp_path / name}\n", "")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] != weights[1]


def _of_model(number: int, **parameters: Any) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: recipe["models"][number]["parameters"].update(parameters)


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: recipe.update(values)


def _slerp(t: Any) -> Callable[[dict[str, Any]], None]:
    def change(recipe: dict[str, Any]) -> None:
        models = [{"model": str(ZOO / name)} for name in ("ja", "math")]
        del recipe["dtype"]
        recipe.update(merge_method="slerp", base_model=models[0]["model"], models=models)
        recipe["parameters"] = {"t": t}

    return change


BAD_VALUES = {
    "misspelt parameter": (
        _of_model(0, wieght=0.3),
        ["models.0.parameters.wieght: ", "'wieght'", "did you mean 'weight'?"],
    ),
    "misspelt key": (_set(dtipe="float32"), ["dtipe: 'dtipe' is not a key here; did you mean"]),
    "unknown method": (_set(merge_method="tise"), ["merge_method: 'tise'", "did you mean 'ties'?"]),
    "density 1.7": (_of_model(1, density=1.7), ["models.1.parameters.density: ", "1.7", "0 to 1"]),
    "t = -0.1": (_slerp(-0.1), ["parameters.t: -0.1", "allowed: 0 to 1"]),
    "NaN weight": (_of_model(0, weight=float("nan")), ["models.0.parameters.weight: nan"]),
    "infinite weight": (_of_model(0, weight=float("inf")), ["models.0.parameters.weight: inf"]),
    "filter that matches nothing": (
        _of_model(0, weight=[{"filter": "mpl", "value": 0.2}, {"value": 0.5}]),
        ["models.0.parameters.weight.0.filter: 'mpl' is in no tensor's name", "model.layers."],
    ),
    "unknown type": (_set(dtype="float17"), ["dtype: 'float17'", "did you mean 'float16'?"]),
    "no such model": (
        lambda recipe: recipe["models"][0].update(model="no/such/model"),
        ["models.0.model: 'no/such/model': no such folder"],
    ),
}


def assert_refused(ended: tuple[int, str, str], folder: Path, *said: str) -> None:
    """Exit code 2, one line that says it, and nothing written beside what was there."""
    code, out, errors = ended
    assert code == 2, errors
    assert out == ""
    (line,) = errors.splitlines()
    for part in said:
        assert part in line
    assert not (folder / "out").exists()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("fault", sorted(BAD_VALUES))
def test_a_bad_recipe_gets_one_line_and_writes_nothing(fault, mergeflow, tmp_path):
    change, said = BAD_VALUES[fault]
    recipe = dare_ties()
    change(recipe)
    file = write(tmp_path, recipe)
    assert_refused(mergeflow("merge", file, tmp_path / "out"), tmp_path, f"{file}: ", *said)


def test_weights_that_sum_to_zero(mergeflow, tmp_path):
    recipe = linear()
    _of_model(1, weight=-1.0)(recipe)
    ended = mergeflow("merge", write(tmp_path, recipe), tmp_path / "out")
    assert_refused(ended, tmp_path, "recipe.yaml: ", "weights sum to 0")


def _config(**values: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, **values}))

    return change


def _truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _shards_but_one(model: Path) -> None:
    opened = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    (model / "model.safetensors").unlink()
    opened.save_pretrained(model, max_shard_size="500KB")
    (model / "model-00002-of-00004.safetensors").unlink()


def _other_words(model: Path) -> None:
    file = model / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    first, second = list(words)[100:102]
    words[first], words[second] = words[second], words[first]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


BAD_MODELS = {
    "mixed architectures": (
        _config(architectures=["MistralForCausalLM"], model_type="mistral"),
        ["architectures is ['MistralForCausalLM'], but ['LlamaForCausalLM']"],
    ),
    "other vocabulary": (_other_words, ["token ", " has id ", "tokenizer: {source: ...}"]),
    "other vocabulary size": (_config(vocab_size=600), ["vocab_size is 600, but 589", "tokenizer"]),
    "missing shard": (_shards_but_one, ["model-00002-of-00004.safetensors is missing", "download"]),
    "truncated file": (_truncate, ["model.safetensors is damaged", "download it again"]),
    "pickled": (_pickle, ["pytorch_model.bin", "save_pretrained"]),
}


@pytest.mark.parametrize("fault", sorted(BAD_MODELS))
def test_a_bad_model_gets_one_line_and_writes_nothing(fault, mergeflow, tmp_path):
    change, said = BAD_MODELS[fault]
    model = tmp_path / "model"
    shutil.copytree(ZOO / "math", model)
    change(model)
    recipe = linear()
    recipe["models"][1]["model"] = str(model)
    file = write(tmp_path, recipe)
    key = f"{file}: models.1.model: {model}"
    assert_refused(mergeflow("merge", file, tmp_path / "out"), tmp_path, key, *said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("merge_method: [linear", "recipe.yaml: not YAML: "),
        ("- linear", "recipe.yaml: recipe: a list must be a mapping"),
        ("", "recipe.yaml: recipe: nothing must be a mapping"),
        (None, "recipe.yaml: cannot be read: No such file or directory"),
        ("\ud800", "recipe.yaml: cannot be read: 'utf-8' codec can't decode"),
    ],
)
def test_a_file_that_is_no_recipe(text, said, mergeflow, tmp_path):
    file = tmp_path / "recipe.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert_refused(mergeflow("merge", file, tmp_path / "out"), tmp_path, said)


def test_an_out_folder_that_is_there_is_left_alone(mergeflow, tmp_path):
    (tmp_path / "out").mkdir()
    code, _, errors = mergeflow("merge", write(tmp_path, linear()), tmp_path / "out")
    assert code == 2
    assert errors == f"{tmp_path / 'out'}: is there already; name a folder that is not\n"
    assert list((tmp_path / "out").iterdir()) == []
