"""Response matrices of real models, and which of the models are whose children."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mergelib.errors import InputError

FloatArray = NDArray[np.float64]


class Matrix(NamedTuple):
    """Responses (models, N) of 0, 1 or NaN, with the models' and the items' names."""

    responses: FloatArray
    models: list[str]
    items: list[str]


class Held(NamedTuple):
    """Held-out models with one set of parents, by rows of the matrix; none, without parents."""

    rows: NDArray[np.int64]
    parents: list[int]


def read_matrix(path: Path) -> Matrix:
    """Read a wide Parquet file of responses."""
    table = pq.read_table(path)
    names = [n for n in table.column_names if pa.types.is_string(table.schema.field(n).type)]
    names += [n for n in table.column_names if pa.types.is_large_string(table.schema.field(n).type)]
    if not names:
        raise InputError(f"{path}: no column of strings names the models")
    items = [name for name in table.column_names if name not in names]
    columns = [table.column(item).cast(pa.float64()).to_numpy() for item in items]
    responses = np.column_stack(columns) if items else np.empty((table.num_rows, 0))
    if min(responses.shape) < 2:
        raise InputError(
            f"{path}: {responses.shape[0]} models, {responses.shape[1]} items: too few"
        )
    return Matrix(responses, table.column(names[0]).to_pylist(), items)


def read_parents(path: Path, matrix: Matrix) -> list[Held]:
    """Read which models are children of which, the children grouped by their parents."""
    place = {model: row for row, model in enumerate(matrix.models)}
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    children: set[int] = set()
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = [*csv.reader(file)] or [[]]
    if header[:2] != ["child", "parent1"]:
        raise InputError(f"{path}: begins with {header}, not with child, parent1, ...")
    for line in filter(any, lines):
        family = [name for name in map(str.strip, line) if name]
        unknown = [name for name in family if name not in place]
        if unknown or len(family) < 2:
            raise InputError(f"{path}: {line} names no known child with parents: {unknown}")
        child, *parents = (place[name] for name in family)
        if child in children or len({child, *parents}) < len(family):
            raise InputError(f"{path}: {line} names a model again")
        children.add(child)
        groups[tuple(sorted(parents))].append(child)
    both = sorted(matrix.models[row] for row in children & set().union(*groups))
    if both or not children:
        raise InputError(
            f"{path}: parents are calibrated on and children are not, but there are "
            + (f"models that are both: {', '.join(both[:3])}" if both else "no children")
        )
    return [Held(np.array(rows), list(parents)) for parents, rows in groups.items()]
