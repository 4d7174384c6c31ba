"""The model card of an exported merge."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, StrictUndefined

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

A merge of {{ models | join(", ") }} by `{{ search.merge.method }}`, found by
mergeflow {{ version }} with {{ search.evolution.algorithm }}.

| benchmark | items | score | 95 % interval | difference to the best endpoint |
|---|---|---|---|---|
{%- for row in rows %}
| {{ row.benchmark }} | {{ row["items"] }} | {{ percent(row.score) }} | {{ percent(row.low) }} to \
{{ percent(row.high) }} | {{ signed(row.diff) }} ({{ signed(row.diff_low) }} to \
{{ signed(row.diff_high) }}) |
{%- endfor %}

The items were not used by the search. Scores are percentages, from answers computed in {{ dtype }};
the weights are {{ search.merge.export_dtype }}.

`mergekit_config.yml` beside this file is the recipe; mergekit merges it to these same weights.
"""


def model_card(bench: Workbench, recipe: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the card.

    Args:
        bench: the search's workbench.
        recipe: the recipe's YAML.
        rows: of finalists.parquet, this model's.
    """
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # Markdown, not HTML
    return environment.from_string(_TEMPLATE).render(
        search=bench.search,
        models=[checkpoint.name for checkpoint in bench.checkpoints.values()],
        recipe=recipe,
        rows=rows,
        dtype=bench.dtype,
        version=version("mergeflow"),
        percent=lambda share: f"{100 * share:.1f}",
        signed=lambda share: f"{100 * share:+.1f}",
    )
