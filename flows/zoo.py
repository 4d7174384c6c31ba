"""`mergeflow zoo build`, with a bar."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from mergelib.zoo.family import build_family


def build_with_progress(out: Path, seed: int) -> None:
    """Build the family and show each model's training steps."""
    console = Console(stderr=True)
    with Progress(console=console) as bar:
        tasks: dict[str, object] = {}

        def on_step(model: str, step: int, steps: int) -> None:
            if model not in tasks:
                tasks[model] = bar.add_task(f"training {model}", total=steps)
            bar.update(tasks[model], completed=step)  # type: ignore[arg-type]

        build_family(out, seed, on_step)
    console.print(f"built in {out}")
