"""What calibration is given from a file: other models' responses, or another run's item bank."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet as pq

from mergelib.banks import bank_of, check_dimensions, threshold_of
from mergelib.errors import InputError, unknown
from mergelib.files import read_json
from mergelib.irt.items import ItemBank
from mergelib.irt.shift import NO_SHIFT, Shift
from mergelib.responses import FileResponses, read_responses
from mergelib.sections.fitness import Fitness

_KEY = "fitness.calibration.source"
_OF_A_BANK = {"benchmark", "item_id", "discrimination", "difficulty"}
INTERVALS = "intervals.json"


class GivenBank(NamedTuple):
    """Another run's bank of one benchmark.

    Attributes:
        bank: of this search's items, in their order.
        shift: that run's; none where it had none.
        widening: that run's; None where its folder does not say.
        threshold: above which its calibration read scores as right; None where they were 0 or 1.
    """

    bank: ItemBank
    shift: Shift
    widening: float | None
    threshold: float | None


class Given(NamedTuple):
    """What a calibration starts from beside the search's own models, by benchmark.

    Attributes:
        responses: of other models to the search pools; empty without such a file.
        banks: of another run; empty without such a file.
        files: what was read.
    """

    responses: dict[str, FileResponses]
    banks: dict[str, GivenBank]
    files: tuple[Path, ...]


class Pools(NamedTuple):
    """The item ids of one benchmark's pools, and whether its scores may lie between 0 and 1."""

    search: Sequence[str]
    fresh: Sequence[str]
    continuous: bool = False


def read_given(fitness: Fitness, benchmarks: Mapping[str, Pools]) -> Given:
    """Read what `fitness.calibration.source` names, and check that it suits the search.

    A Parquet file with the columns of a bank (benchmark, item_id, discrimination, difficulty) is
    another run's bank.parquet; where that run's intervals.json lies beside it, its shift and its
    widening are taken too. Any other file holds responses.

    Args:
        fitness: the search file's section.
        benchmarks: the items of each benchmark, by its name.

    Raises:
        InputError: no such file, or it does not fit; names the key.
    """
    source = fitness.calibration.source
    if source == "self":
        return Given({}, {}, ())
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{_KEY}: {source}: no such file; allowed: self, or a file's path")
    try:
        if _is_bank(path):
            return _given_banks(path, fitness, benchmarks)
        read = {
            name: read_responses(
                path,
                pools.search,
                benchmark=name,
                passed_over=pools.fresh,
                keep_scores=pools.continuous,
            )
            for name, pools in benchmarks.items()
        }
    except InputError as error:
        raise InputError(f"{_KEY}: {error}") from error
    for name, found in read.items():
        dimensions = fitness.calibration.dimensions
        check_dimensions(dimensions, len(found.models), len(found.items), name)
    return Given(read, {}, (path,))


def _is_bank(path: Path) -> bool:
    if path.suffix != ".parquet":
        return False
    try:
        names = set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return False  # reading the responses says what is wrong with it
    return names >= _OF_A_BANK and "response" not in names


def _given_banks(path: Path, fitness: Fitness, benchmarks: Mapping[str, Pools]) -> Given:
    if fitness.estimator == "gp_irt":
        raise InputError(
            f"{path}: an item bank, but gp_irt's constant comes from responses; give that run's "
            "responses.parquet, or another estimator"
        )
    table = pq.read_table(path)
    held = sorted(set(table["benchmark"].to_pylist()))
    beside = path.parent / INTERVALS
    fits = read_json(beside) if beside.is_file() else {}
    banks = {}
    for name, pools in benchmarks.items():
        if name not in held:
            raise InputError(f"{path}: {unknown('a benchmark of it', name, held)}")
        bank = _cut_to(bank_of(table, name), pools.search, path, name)
        asked = fitness.calibration.dimensions
        if asked not in ("auto", bank.dimensions):
            raise InputError(
                f"{path}: {bank.dimensions} abilities for {name}, but "
                f"fitness.calibration.dimensions is {asked}; give {bank.dimensions} or auto there"
            )
        fit = fits.get(name)
        shift = Shift(**fit["shift"]) if fit else NO_SHIFT
        widening = fit["widening"] if fit else None
        banks[name] = GivenBank(bank, shift, widening, threshold_of(table, name))
    return Given({}, banks, (path, beside) if fits else (path,))


def _cut_to(bank: ItemBank, items: Sequence[str], path: Path, name: str) -> ItemBank:
    """The bank of these items. One that lacks some is refused: nobody answers to calibrate those.

    Raises:
        InputError: says how many are missing.
    """
    place = {item: number for number, item in enumerate(bank.items)}
    missing = [item for item in items if item not in place]
    if missing:
        raise InputError(
            f"{path}: no parameters for {len(missing)} of the {len(items)} items of {name} "
            f"({', '.join(map(repr, missing[:3]))}{', ...' if len(missing) > 3 else ''}); give "
            "the seed and search_items of the run that it comes from, or its responses.parquet"
        )
    rows = [place[item] for item in items]
    return ItemBank(
        tuple(items),
        bank.discrimination[rows],
        bank.difficulty[rows],
        bank.discrimination_se[rows],
        bank.difficulty_se[rows],
    )
