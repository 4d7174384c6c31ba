"""A merged model as a folder that transformers, lm-eval and mergekit open."""

from pathlib import Path

import torch

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError
from mergelib.files import write_folder
from mergelib.workbench import Workbench


def export_model(bench: Workbench, recipe: str, card: str, folder: Path) -> None:
    """Write the very weights that were evaluated, with tokenizer, recipe and model card.

    Args:
        bench: the search's workbench.
        recipe: the recipe's YAML.
        card: the model card's text.
        folder: is made, or replaced as a whole.

    Raises:
        MergeError: what was written is not, to the bit, what was evaluated.
    """
    resident = bench.write_model(recipe)

    def fill(partial: Path) -> None:
        resident.save(partial, bench.search.merge.export_dtype)
        (partial / "mergekit_config.yml").write_text(recipe, encoding="utf-8")
        (partial / "README.md").write_text(card, encoding="utf-8")
        evaluated = resident.model.state_dict()
        unsaved = {name for name, _ in resident.model.named_parameters()}
        for name, saved in Checkpoint(str(partial), partial).tensors():
            unsaved.discard(name)
            if not torch.equal(saved.to(evaluated[name].dtype), evaluated[name].cpu()):
                raise MergeError(f"{folder}: {name} differs from what was evaluated")
        if unsaved:
            raise MergeError(f"{folder}: {min(unsaved)} was evaluated and not written")

    write_folder(folder, fill)
