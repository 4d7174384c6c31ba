"""How many abilities an item bank should have, judged by what it is for: estimated accuracy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp

from mergelib.errors import InputError
from mergelib.irt import ability, multidimensional
from mergelib.irt.bank import GRID, calibrate
from mergelib.irt.items import FloatArray, ItemBank
from mergelib.irt.multidimensional_accuracy import posterior_nodes, wide_prior
from mergelib.irt.shift import fit_shift

FOLDS = 5
DRAWS = 4


class DimensionChoice(NamedTuple):
    """The number of abilities to use, and the errors that speak for it.

    Attributes:
        dimensions: the chosen D.
        errors: for each D tried, the mean absolute error of the estimated accuracy, a share.
        standard_errors: for each D tried, of its error's paired difference to the smallest D's,
            over models; 0 for the smallest D itself.
    """

    dimensions: int
    errors: dict[int, float]
    standard_errors: dict[int, float]


def choose_dimensions(
    responses: FloatArray,
    items: Sequence[str],
    n: int,
    random: np.random.Generator,
    *,
    candidates: Sequence[int] = (1, 2, 3),
    averaged: bool = False,
) -> DimensionChoice:
    """Choose the number of abilities by the cross-validated error of accuracy from n items.

    Each fifth of the models is held out of a calibration with each D. Of n random items that it
    answered, the same for every D, its abilities' posterior mode is taken, and its accuracy over
    all items that it answered is estimated: seen responses, and probabilities for the others.
    More abilities always fit single cells better; with few items a model they are known too badly
    to help (the n of a search, not its calibration, decides). So the smallest D stands unless a
    larger one's error is lower by more than two standard errors of the difference.

    Args:
        responses: (models, items) of 0, 1 or NaN.
        items: one identifier a column.
        n: how many items a candidate of the search answers, at least 1.
        random: draws folds and items.
        candidates: the D to try, rising, from at least 1; those that the held-in models are too
            few for are left out.
        averaged: judge accuracy as `parent_irt` takes it: over the abilities' posterior instead of
            at its mode, and with one ability beside a shift. That shift does for accuracy most of
            what a second ability does.

    Raises:
        InputError: as `mergelib.irt.bank.calibrate`, fewer than 4 models, no model with more than
            n responses, or candidates that do not rise from 1 or more.
    """
    responses = np.asarray(responses, dtype=np.float64)
    tried = list(candidates)
    if not tried or tried[0] < 1 or any(a >= b for a, b in zip(tried, tried[1:], strict=False)):
        raise InputError(f"dimensions: candidates {tried} do not rise from 1 or more")
    if responses.ndim != 2 or len(responses) < 4:
        raise InputError(
            f"dimensions: responses of shape {responses.shape}; a choice needs at least 4 models; "
            "use one ability"
        )
    usable = (~np.isnan(responses)).sum(1) > n
    if n < 1 or not usable.any():
        raise InputError(
            f"dimensions: no model has more than {n} responses, so none can show what {n} tell; "
            "use one ability"
        )
    folds = min(FOLDS, len(responses) // 2)
    fold = random.permutation(len(responses)) % folds
    limit = min(len(responses) - int(np.bincount(fold).max()), responses.shape[1]) - 1
    tried = [d for d in tried if d == 1 or d <= limit] or [1]
    gaps: dict[int, list[FloatArray]] = {d: [] for d in tried}
    for number in range(folds):
        held = responses[(fold == number) & usable]
        if not len(held):
            continue
        seen = np.concatenate([_some_of_each(held, n, random) for _ in range(DRAWS)])
        complete = np.tile(held, (DRAWS, 1))
        for d in tried:
            rest = responses[fold != number]
            bank = bank_of_dimensions(rest, items, d)
            expected = _averaged(seen, bank, rest) if averaged else _at_mode(seen, bank)
            estimated = np.where(np.isnan(seen), expected, seen)
            estimated = np.nanmean(np.where(np.isnan(complete), np.nan, estimated), axis=1)
            gap = np.abs(estimated - np.nanmean(complete, axis=1))
            gaps[d].append(gap.reshape(DRAWS, -1).mean(0))
    per_model = {d: np.concatenate(parts) for d, parts in gaps.items()}
    errors = {d: float(gap.mean()) for d, gap in per_model.items()}
    smallest = per_model[tried[0]]
    # one model shows no spread: then no larger D is better by enough
    spread = {
        d: float(np.std(gap - smallest, ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else np.inf
        for d, gap in per_model.items()
    }
    spread[tried[0]] = 0.0
    better = [d for d in tried if errors[d] < errors[tried[0]] - 2 * spread[d]]
    return DimensionChoice(min(better, key=errors.__getitem__, default=tried[0]), errors, spread)


def _some_of_each(responses: FloatArray, n: int, random: np.random.Generator) -> FloatArray:
    """Each row with n of its responses at random, the others NaN."""
    order = np.where(np.isnan(responses), np.inf, random.random(responses.shape))
    last = np.partition(order, n - 1, axis=1)[:, n - 1 : n]
    return np.where(order <= last, responses, np.nan)


def bank_of_dimensions(
    responses: FloatArray, items: Sequence[str], dimensions: int, *, max_iterations: int = 300
) -> ItemBank:
    """The bank of a calibration with D abilities, D from 1 on.

    Args:
        responses: (models, items) of 0, 1 or NaN.
        items: one identifier a column.
        dimensions: D.
        max_iterations: of the calibration with one ability; with several it takes 100 sweeps.

    Raises:
        InputError: as `mergelib.irt.bank.calibrate` and
            `mergelib.irt.multidimensional.calibrate_dimensions`.
    """
    if dimensions == 1:
        return calibrate(responses, items, max_iterations=max_iterations).bank
    return multidimensional.calibrate_dimensions(responses, items, dimensions).bank


def _at_mode(seen: FloatArray, bank: ItemBank) -> FloatArray:
    """Probability (C, I) of a right answer at each row's most probable abilities."""
    if bank.dimensions == 1:
        return bank.probability(ability.maximum_a_posteriori(seen, bank))
    return bank.probability(multidimensional.maximum_a_posteriori(seen, bank).mode)


def _averaged(seen: FloatArray, bank: ItemBank, rest: FloatArray) -> FloatArray:
    """Probability (C, I) of a right answer, averaged over each row's posterior."""
    if bank.dimensions > 1:
        prior = wide_prior(bank.dimensions, 1.0)
        gamma, log_w = posterior_nodes(seen, bank, prior)
        weights = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))
        rows = zip(weights, gamma, strict=True)
        return np.stack([w @ bank.probability(nodes) for w, nodes in rows])
    shift = fit_shift(rest, bank)
    z = shift.logits(bank, GRID)  # (I, R)
    asked = (~np.isnan(seen)).astype(np.float64)
    log_prior = np.log(ability.gaussian_weights(0.0, shift.ability_sd))[:, None]
    log_w = np.where(asked > 0, seen, 0.0) @ z - asked @ np.logaddexp(0.0, z)
    log_w = log_w + (log_prior + np.log(shift.shares)).ravel()
    weights = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))
    expected: FloatArray = weights @ expit(z).T
    return expected
