"""A merged model as a folder that transformers, lm-eval and mergekit open."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError
from mergelib.files import write_folder
from mergelib.workbench import Workbench


def export_models(bench: Workbench, models: Mapping[str, tuple[str, str]], folder: Path) -> None:
    """Write the very weights that were evaluated, with tokenizer, recipe and model card.

    Args:
        bench: the search's workbench.
        models: the recipe's YAML and the card of each model, by its folder's name below `folder`;
            "" writes one model into `folder` itself.
        folder: is made, or replaced as a whole.

    Raises:
        MergeError: what was written is not, to the bit, what was evaluated.
    """

    def fill(partial: Path) -> None:
        for name, (recipe, card) in models.items():
            (partial / name).mkdir(exist_ok=True)
            _write(bench, recipe, card, partial / name)

    write_folder(folder, fill)


def _write(bench: Workbench, recipe: str, card: str, folder: Path) -> None:
    resident = bench.write_model(recipe)
    resident.save(folder, bench.search.merge.export_dtype)
    (folder / "mergekit_config.yml").write_text(recipe, encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    evaluated = resident.model.state_dict()
    unsaved = {name for name, _ in resident.model.named_parameters()}
    for name, saved in Checkpoint(str(folder), folder).tensors():
        unsaved.discard(name)
        if not torch.equal(saved.to(evaluated[name].dtype), evaluated[name].cpu()):
            raise MergeError(f"{folder}: {name} differs from what was evaluated")
    if unsaved:
        raise MergeError(f"{folder}: {min(unsaved)} was evaluated and not written")
