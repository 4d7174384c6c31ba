"""A merged model as a folder that transformers, lm-eval and mergekit open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError
from mergelib.files import EnoughRoom, write_folder
from mergelib.merging.folder import check_opens, copy_code, open_to_readers
from mergelib.merging.resident import DTYPES, ResidentModel
from mergelib.workbench import Workbench


def export_models(bench: Workbench, models: Mapping[str, tuple[str, str]], folder: Path) -> None:
    """Write the very weights that were evaluated, with tokenizer, recipe and model card.

    Each model is opened again, as its users will, before the folder gets its name.

    Args:
        bench: the search's workbench.
        models: the recipe's YAML and the card of each model, by its folder's name below `folder`;
            "" writes one model into `folder` itself.
        folder: is made, or replaced as a whole.

    Raises:
        MergeError: what was written is not, to the bit, what was evaluated, or cannot be opened.
        InputError: the disk is full; the folder is as it was.
    """

    def fill(partial: Path) -> None:
        for name, (recipe, card) in models.items():
            (partial / name).mkdir(exist_ok=True)
            _write(bench, recipe, card, partial / name)

    dtype = DTYPES[bench.search.merge.export_dtype]
    count = bench.merged_parameters
    with EnoughRoom(folder, len(models) * count * dtype.itemsize):
        write_folder(folder, fill)


def _host(bench: Workbench) -> Checkpoint:
    """The model in whose architecture all answer, and whose code they need."""
    return next(iter(bench.checkpoints.values()))


def _write(bench: Workbench, recipe: str, card: str, folder: Path) -> None:
    resident = bench.write_model(recipe)
    resident.save(folder, bench.search.merge.export_dtype)
    open_to_readers(folder)
    copy_code(_host(bench), folder)
    (folder / "mergekit_config.yml").write_text(recipe, encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    _check_evaluated(resident, check_opens(folder, _host(bench).trust_remote_code), folder)


def _check_evaluated(resident: ResidentModel, opened: Any, folder: Path) -> None:
    """Compare the model as its users will open it, since files may hold it in other pieces."""
    saved = dict(opened.named_parameters())
    for name, value in resident.model.named_parameters():
        if name not in saved:
            raise MergeError(f"{folder}: {name} was evaluated and not written")
        if not torch.equal(saved[name].to(value.dtype), value.cpu()):
            raise MergeError(f"{folder}: {name} differs from what was evaluated")
