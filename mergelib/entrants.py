"""Who takes part in a comparison: models as named, and what run folders exported."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError
from mergelib.runs import Run
from mergelib.sections.comparison import Comparison
from mergelib.sections.objectives import BenchmarkChoice


def with_runs(comparison: Comparison) -> Comparison:
    """Put what run folders exported in their place, and their benchmarks where none are named.

    Raises:
        InputError: a run has exported nothing, or there is no benchmark.
    """
    models: list[str] = []
    for model in comparison.models:
        models += _exported(Run(Path(model))) if _is_run(model) else [model]
    resolved = comparison.model_copy(update={"models": tuple(dict.fromkeys(models))})
    if resolved.benchmarks:
        pool = "all" if comparison.pool == "auto" else comparison.pool
        return resolved.model_copy(update={"pool": pool})
    runs = _runs(comparison)
    if not runs:
        raise InputError("benchmarks: name at least one; only a run folder brings its own")
    search = runs[0].search
    fields = set(BenchmarkChoice.model_fields)
    aims = {objective.benchmark for objective in search.objectives}
    limits = [limit for limit in search.constraints if limit.benchmark not in aims]
    chosen = (*limits, *search.objectives)
    choices = [BenchmarkChoice(**choice.model_dump(include=fields)) for choice in chosen]
    pool = "fresh" if comparison.pool == "auto" else comparison.pool
    return resolved.model_copy(
        update={"benchmarks": tuple(choices), "seed": search.seed, "pool": pool}
    )


def notes(comparison: Comparison, resolved: Comparison) -> Iterator[str]:
    """Tell where a run's model is asked what its search has used.

    Args:
        comparison: as the user gave it.
        resolved: what `with_runs` made of it.
    """
    for run in _runs(comparison):
        search = run.search
        used = {choice.benchmark for choice in (*search.objectives, *search.constraints)}
        fresh_to_it = resolved.pool == "fresh" and resolved.seed == search.seed
        for choice in resolved.benchmarks:
            if choice.benchmark in used and not fresh_to_it:
                yield (
                    f"{run.folder.name}: its search has used items of {choice.reference}; "
                    f"pool fresh with seed {search.seed} leaves them out"
                )


def names_of(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """What tables call the models: a run's by the run, and all by more where it is not enough."""
    names = []
    for checkpoint in checkpoints:
        home = checkpoint.folder.resolve()
        run = next((above for above in home.parents[:2] if _is_run(str(above))), None)
        inside = home.relative_to(run).as_posix().removeprefix("front/") if run else ""
        names.append(f"{run.name} {inside}" if run else checkpoint.name)
    return tuple(
        checkpoint.reference if names.count(name) > 1 else name
        for name, checkpoint in zip(names, checkpoints, strict=True)
    )


def _runs(comparison: Comparison) -> list[Run]:
    return [Run(Path(model)) for model in comparison.models if _is_run(model)]


def _is_run(reference: str) -> bool:
    return (Path(reference) / "search.yaml").is_file()


def _exported(run: Run) -> list[str]:
    """The folders of a run's winner, or of its front's members."""
    folders = [run.path("winner"), *sorted(run.path("front").glob("*"))]
    found = [str(folder) for folder in folders if (folder / "config.json").is_file()]
    if not found:
        raise InputError(f"models: {run.folder}: has exported no model; is the search finished?")
    return found
