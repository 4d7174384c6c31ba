import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergelib.errors import InputError, MergeError
from mergelib.merging import standalone
from mergelib.merging.folder import (
    check_opens,
    check_written,
    planned_bytes,
    tensor_digest,
    write_weights,
)
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.standalone import merge_to_folder
from mergelib.recipes import Recipe
from tests.mergelib.merging.test_standalone import (
    assert_same_tensors,
    by_mergekit,
    linear,
    merged,
    with_base,
    write,
)


def test_weights_that_overflow_leave_nothing(llama, tmp_path):
    config = linear(llama, dtype="float32", out_dtype="float16", parameters={"normalize": False})
    config["models"][0]["parameters"]["weight"] = 1e9
    recipe = write(tmp_path, config)
    with pytest.raises(InputError, match=r"recipe.yaml: tensor .* not finite"):
        merge_to_folder(recipe, tmp_path / "a" / "b" / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_many_shards_hold_the_same_tensors(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(
        standalone, "write_weights", lambda *given: write_weights(*given, shard_bytes=30_000)
    )
    config = with_base(llama, "task_arithmetic")
    out = merged(config, tmp_path)
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 2
    assert_same_tensors(out, by_mergekit(config, tmp_path / "theirs"))


@pytest.mark.parametrize("fault", ["changed", "gone", "unopened"])
def test_a_folder_that_is_not_what_was_merged_gets_no_name(fault, llama, tmp_path, monkeypatch):
    """Faults of the disk and of libraries, which cannot be caused otherwise."""

    def write_wrongly(merger, plan, folder):
        written = write_weights(merger, plan, folder)
        file = folder / "model.safetensors"
        weights = {name: value.clone() for name, value in load_file(file).items()}
        if fault == "changed":
            weights["model.norm.weight"][3] += 1
        else:
            del weights["model.norm.weight"]
        save_file(weights, file, {"format": "pt"})
        if fault == "unopened":
            del written.digests["model.norm.weight"]
        return written

    monkeypatch.setattr(standalone, "write_weights", write_wrongly)
    kind, said = {
        "changed": (MergeError, "model.norm.weight on the disk differs"),
        "gone": (MergeError, "model.norm.weight was merged and is not on the disk"),
        "unopened": (InputError, "lacks model.norm.weight, which transformers would fill"),
    }[fault]
    with pytest.raises(kind, match=said):
        merged(linear(llama), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_folder_with_tensors_that_transformers_does_not_take_is_refused(llama, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(llama.one.folder, folder)
    check_opens(folder, trust_remote_code=False)
    weights = load_file(folder / "model.safetensors")
    digests = {name: tensor_digest(name, value) for name, value in weights.items()}
    check_written(folder, digests)
    save_file({**weights, "extra": torch.ones(2)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(MergeError, match="has extra, for which transformers has no place"):
        check_opens(folder, trust_remote_code=False)
    with pytest.raises(MergeError, match="tensor extra on the disk differs"):
        check_written(folder, digests)
    (folder / "config.json").write_text("{}")
    with pytest.raises(MergeError, match="transformers cannot open the merged model: "):
        check_opens(folder, trust_remote_code=False)


def test_a_digest_is_of_name_type_shape_and_bytes():
    value = torch.tensor([[1.0, 2.0]])
    others = [value.T, value.half(), value.view(torch.int32), value + 1]
    digests = {tensor_digest("a", each) for each in (value, *others)} | {tensor_digest("b", value)}
    assert len(digests) == 6
    assert tensor_digest("a", torch.ones(2, 3).T) == tensor_digest("a", torch.ones(3, 2))
    assert len(tensor_digest("a", torch.tensor(1.0, dtype=torch.bfloat16))) == 64


def test_the_size_is_known_before(llama, tmp_path):
    for config, bytes_each in ((linear(llama), 2), (linear(llama, dtype="float32"), 4)):
        checkpoints = {str(c.folder): c for c in llama.checkpoints.values()}
        plan = MergekitMerger(checkpoints, 0).plan(Recipe(config))
        count = sum(value.numel() for _, value in llama.base.tensors())
        names = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
        beside = sum((llama.one.folder / name).stat().st_size for name in names)
        planned = planned_bytes(plan, checkpoints)
        assert planned == count * bytes_each + beside


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The operating system's own fault: writing beyond so many bytes fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("size", "options"), [(50_000, {}), (2_000, {"tokenizer_source": "base"})])
def test_a_file_that_may_not_grow_leaves_nothing(size, options, llama, tmp_path):
    """In the weights, which safetensors writes; and in what the tokenizers library writes."""
    recipe = write(tmp_path, with_base(llama, "task_arithmetic") | options)
    out = tmp_path / "new" / "out"
    with (
        pytest.raises(InputError, match=f"^{out}: File too large: about .* are free; make room,"),
        no_file_above(size),
    ):
        merge_to_folder(recipe, out)
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size} tmpfs {disk} || exit 9
{command} merge {recipe} {disk}/out
code=$?
ls -A {disk}
exit $code
"""


@pytest.mark.parametrize(("spare", "free"), [(-60_000, "69.6 kB"), (40_000, "172.0 kB")])
def test_a_full_disk_leaves_nothing(spare, free, llama, tmp_path):
    """A file system that has no room from the start, and one that is full half-way."""
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a file system of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    recipe = write(tmp_path, with_base(llama, "task_arithmetic"))
    weights = sum(value.nbytes for _, value in llama.base.tensors())
    script = ON_A_SMALL_DISK.format(
        size=weights + spare,
        disk=disk,
        recipe=recipe,
        command=f"{sys.executable} -c 'from flows.cli import main; main()'",
    )
    result = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, check=False
    )
    if result.returncode == 9:
        pytest.skip("this machine does not let a test mount a file system of its own")
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{disk}/out: No space left on device: about 160.2 kB are")
    assert f"{free} are free" in line
    assert result.stdout == ""
