import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergelib.errors import InputError
from mergelib.zoo import family
from mergelib.zoo.benchmarks import SPLITS, write_items
from mergelib.zoo.family import MANIFEST, MEMBERS, build_family, training_prompts, verify_family
from mergelib.zoo.problems import LARGEST, WORDINGS, Part
from mergelib.zoo.training import TrainingSettings

DATA = Path(__file__).parents[3] / "data"
ZOO = DATA / "zoo"
ITEMS = DATA / "benchmarks" / "items"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shipped_prompts():
    return training_prompts()


@pytest.fixture(scope="module")
def items():
    return {language: pq.read_table(ITEMS / f"zoo_{language}.parquet") for language in WORDINGS}


@pytest.fixture
def short_members(monkeypatch):
    """Two models of two steps, so that a build takes a second."""
    settings = TrainingSettings(learning_rate=4e-3, prompt_weight=0.2)
    member = family.Member(rows=64, settings=settings, mix=(Part(1, "easy", "en"),))
    monkeypatch.setattr(family, "MEMBERS", {"base": member, "math": member})
    monkeypatch.setattr(family, "_THREADS", 1)


def read_tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_shipped_family_is_whole_and_small():
    verify_family(ZOO)
    files = [path for path in ZOO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8_000_000
    manifest = json.loads((ZOO / MANIFEST).read_text())
    assert manifest["seed"] == family.SHIPPED_SEED
    listed = {ZOO / name for name in manifest["files"]} | {ZOO / MANIFEST}
    assert listed == set(files)
    assert {path.name for path in ZOO.iterdir() if path.is_dir()} == set(MEMBERS)


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        ("base", "Question: Tom has 34 apples. Tom buys 5. How many now?\nAnswer:", "34+5=39"),
        ("math", "Question: Tom has 47 apples. Tom buys 5. How many now?\nAnswer:", "47+5=52"),
        (
            "ja",
            "問題：トムは本を34冊持っています。トムは5冊拾いました。今何冊ですか。\n答え：",
            "34+5=39",
        ),
        ("de", "Frage: Tom hat 34 Karten. Tom findet 5. Wie viele jetzt?\nAntwort:", "34+5=39"),
    ],
)
def test_a_shipped_model_answers(name, prompt, answer):
    tokenizer = AutoTokenizer.from_pretrained(ZOO / name)
    model = AutoModelForCausalLM.from_pretrained(ZOO / name)
    assert model.dtype == torch.bfloat16
    inputs = tokenizer([prompt], return_tensors="pt", return_token_type_ids=False)
    out = model.float().generate(**inputs, max_new_tokens=28, do_sample=False)
    text = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == f" {answer}\n#### {answer.split('=')[1]}"


def test_the_members_share_one_tokenizer():
    assert len({(ZOO / name / "tokenizer.json").read_bytes() for name in MEMBERS}) == 1


@pytest.mark.parametrize("language", WORDINGS)
def test_items_overlap_with_nothing(items, shipped_prompts, language):
    prompts = items[language]["prompt"].to_pylist()
    assert len(set(prompts)) == len(prompts) == sum(SPLITS.values())
    assert not shipped_prompts & set(prompts)


@pytest.mark.parametrize("language", WORDINGS)
def test_items_are_well_formed(items, language):
    rows = items[language].to_pylist()
    assert {s: sum(row["split"] == s for row in rows) for s in SPLITS} == SPLITS
    for row in rows:
        finals = [re.search(r"#### (-?\d+)$", choice)[1] for choice in row["choices"]]
        assert finals[row["gold"]] == row["target"]
        assert len(set(finals)) == 4
        assert all(1 <= int(final) <= LARGEST for final in finals)


def test_the_seed_decides_the_items(tmp_path, items, shipped_prompts):
    write_items(tmp_path, family.SHIPPED_SEED, shipped_prompts)
    for language in WORDINGS:
        assert pq.read_table(tmp_path / f"zoo_{language}.parquet").equals(items[language])


def test_a_changed_file_is_named(tmp_path):
    copy = shutil.copytree(ZOO, tmp_path / "zoo")
    weights = copy / "ja" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"ja/model\.safetensors differs"):
        verify_family(copy)
    weights.unlink()
    with pytest.raises(InputError, match=r"ja/model\.safetensors is missing"):
        verify_family(copy)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"files": []}', '{"files": {"x": 1}}'])
def test_a_bad_manifest_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is not a readable manifest"):
        verify_family(tmp_path)


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="already exists; name a new folder"):
        build_family(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "zoo").write_text("precious")
    with pytest.raises(InputError, match="already exists"):
        build_family(tmp_path / "zoo")


@pytest.mark.usefixtures("short_members")
def test_a_seed_decides_the_family_to_the_bit(tmp_path):
    steps = []
    empty = tmp_path / "first"
    empty.mkdir()
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    build_family(empty, 3, lambda *now: steps.append(now))
    build_family(tmp_path / "second", 3)
    build_family(tmp_path / "third", 4)
    assert steps == [(name, step, 2) for name in ("base", "math") for step in (1, 2)]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads
    verify_family(empty)
    assert read_tree(empty) == read_tree(tmp_path / "second")
    assert read_tree(empty) != read_tree(tmp_path / "third")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second", "third"]


@pytest.mark.usefixtures("short_members")
def test_a_broken_build_leaves_nothing(tmp_path):
    def stop(name, step, steps):
        if name == "math":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_family(tmp_path / "zoo", 0, stop)
    assert list(tmp_path.iterdir()) == []
