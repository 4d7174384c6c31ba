"""The model card of an exported merge."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from mergelib.merging.methods import RANDOM_METHODS
from mergelib.recipes import Recipe
from mergelib.reservations import reservations
from mergelib.workbench import Workbench

_TEMPLATE = """\
---
library_name: transformers
base_model:
{%- for model in models %}
- {{ model }}
{%- endfor %}
tags:
- mergekit
- merge
- mergeflow
---
# {{ search.name }}

A merge of {{ models | join(", ") }} by `{{ method }}`, found by
mergeflow {{ version }} with {{ search.evolution.algorithm }}.

| benchmark | items | score | 95 % interval | difference to the best endpoint |
|---|---|---|---|---|
{%- for row in rows %}
| {{ row.benchmark }} | {{ row["items"] }} | {{ percent(row.score) }} | {{ percent(row.low) }} to \
{{ percent(row.high) }} | {{ signed(row.diff) }} ({{ signed(row.diff_low) }} to \
{{ signed(row.diff_high) }}) |
{%- endfor %}

The search did not see these items.
{%- if search.front %} The model is a member of a front that was chosen on them, which flatters
it a little.{% endif %} Scores are percentages, from answers computed in {{ dtype }}; the weights
are {{ search.merge.export_dtype }}.
{%- for sentence in reservations %} {{ sentence }}{% endfor %}

`mergekit_config.yml` beside this file is the recipe.
{%- if random %} Its method draws random masks: mergekit draws others than those of these weights.
{%- else %} mergekit merges it to these same weights.{% endif %}
"""


def model_card(bench: Workbench, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the card.

    Args:
        bench: the search's workbench.
        rows: of finalists.parquet, this model's.
    """
    method = Recipe.from_yaml(rows[0]["recipe"]).method
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # Markdown, not HTML
    return environment.from_string(_TEMPLATE).render(
        search=bench.search,
        # A folder's place is nobody else's concern; a hub id is a link.
        models=[
            checkpoint.name if Path(reference).is_dir() else reference
            for reference, checkpoint in bench.checkpoints.items()
        ],
        random=method in RANDOM_METHODS,
        method=method,
        rows=rows,
        dtype=bench.dtype,
        reservations=reservations(bench),
        version=version("mergeflow"),
        percent=lambda share: f"{100 * share:.1f}",
        signed=lambda share: f"{100 * share:+.1f}",
    )
