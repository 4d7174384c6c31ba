"""A model's accuracy on all N items, estimated from its responses to some of them.

The published estimators stand as published, so that results compare; `parent_irt` is this
project's own. With one ability the posterior is taken over a grid, and `parent_irt` may allow for a
shift; with D > 1 it is taken over each candidate's own nodes, and no shift is needed: that is what
the further abilities are. `A` below is the finite-population accuracy: the mean response over
exactly these N items, of which the seen ones are known.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mergelib.errors import InputError
from mergelib.intervals import wilson
from mergelib.irt import multidimensional, multidimensional_ability, multidimensional_accuracy
from mergelib.irt.ability import (
    ParentPrior,
    checked_responses,
    gaussian_weights,
    maximum_likelihood,
    parent_prior_weights,
    posterior,
    posterior_mean,
)
from mergelib.irt.accuracy import Estimates as Estimates
from mergelib.irt.accuracy import accuracy_posterior, possible
from mergelib.irt.bank import GRID, FloatArray, ItemBank
from mergelib.irt.blending import GpIrtConstants as GpIrtConstants
from mergelib.irt.blending import gp_irt_constants as gp_irt_constants
from mergelib.irt.multidimensional_ability import likeliest
from mergelib.irt.shift import NO_SHIFT, Shift

GMP_IRT_CONSTANT = 0.5  # MERGE3 (Mencattini et al., 2025), c of gmp-IRT


@dataclass(frozen=True, eq=False)
class EstimatorContext:
    """What an estimator may know besides the candidates' responses.

    Attributes:
        bank: the N items; None suffices for mean, weighted and full.
        endpoint_abilities: (J,) abilities of the endpoints, (J, D) with D > 1, for mp_irt, gmp_irt
            and parent_irt; None or empty without endpoints, which parent_irt alone can do with.
        weights: (N,) share weights of the anchor items, not negative; None for equal ones.
        gp_irt_constants: for gp_irt, b and v, or a fixed c in [0, 1].
        clustered_anchors: the items are cluster centres, whose weighted mean has a quarter of a
            random sample's variance: gp_irt then uses v / (4 n), as published.
        parent_prior: for parent_irt.
        shift: the second trait for parent_irt, from `mergelib.irt.shift.fit_shift`; none with
            D > 1.
        widening: factor on what not knowing ability adds to the item response models' intervals,
            at least 0, from `mergelib.replay.replay` on models held out of the calibration.
        level: nominal coverage of the intervals.
    """

    bank: ItemBank | None = None
    endpoint_abilities: FloatArray | None = None
    weights: FloatArray | None = None
    gp_irt_constants: GpIrtConstants | float | None = None
    clustered_anchors: bool = False
    parent_prior: ParentPrior = ParentPrior()
    shift: Shift = NO_SHIFT
    widening: float = 1.0
    level: float = 0.95


Estimator = Callable[[FloatArray, EstimatorContext], Estimates]
"""(responses (C, N) with NaN where not asked or not scored, context) -> estimates (C,).

Raises `InputError` where the responses' values or shape, or the context, are not what it needs.
"""


def endpoint_abilities(
    responses: FloatArray, bank: ItemBank, shift: Shift = NO_SHIFT
) -> FloatArray:
    """Abilities (J,) from the endpoints' responses (J, N), 0, 1 or NaN; NaN without a response.

    By maximum likelihood; with a shift, which likelihood alone hardly tells from ability where
    responses are few, the posterior mean among the calibration models; with D > 1, for the same
    reason, the posterior mode (J, D).
    """
    if bank.dimensions > 1:
        modes = multidimensional.maximum_a_posteriori(responses, bank).mode
        return np.where(np.isnan(responses).all(axis=1, keepdims=True), np.nan, modes)
    if shift == NO_SHIFT:
        return maximum_likelihood(responses, bank)
    prior = gaussian_weights(0.0, shift.ability_sd)
    ability = posterior_mean(posterior(responses, bank, prior, shift=shift))
    return np.where(np.isnan(responses).all(axis=1), np.nan, ability)


def mean(responses: FloatArray, context: EstimatorContext) -> Estimates:
    """Mean response; scores in [0, 1] will do. Wilson interval for N items of which n are seen."""
    return weighted(responses, replace(context, weights=None))


def weighted(responses: FloatArray, context: EstimatorContext) -> Estimates:
    """Weighted mean response, the weights shared out anew among the items that were scored.

    The interval is Wilson's at Kish's effective number of items, (sum w)^2 / sum w^2.
    """
    responses = _scores(responses)
    asked = ~np.isnan(responses)
    total = responses.shape[1]
    w = np.ones(total) if context.weights is None else np.asarray(context.weights, np.float64)
    if w.shape != (total,) or not np.all(np.isfinite(w) & (w >= 0)):
        raise InputError(
            f"weights: shape {w.shape} or values do not fit {total} items; give each item a "
            "weight of at least 0"
        )
    y = np.where(asked, responses, 0.0)
    sum_w = asked @ w
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.clip(y @ w / sum_w, 0.0, 1.0)
        # all N items with unequal weights are still no sample of less than N unseen ones
        effective = np.where(sum_w > 0, sum_w**2 / (asked @ w**2), 0.0)
    effective = np.minimum(effective, asked.sum(1))
    interval = wilson(np.nan_to_num(value) * effective, effective, context.level, total)
    low, high = possible(interval.low, interval.high, y.sum(1), asked.sum(1), total)
    return Estimates(value, np.minimum(low, value), np.maximum(high, value))


def p_irt(responses: FloatArray, context: EstimatorContext) -> Estimates:
    """p-IRT (Maia Polo et al., 2024): seen responses, and predictions for the unseen.

    Ability by maximum likelihood. The interval is that of A under a flat prior on the grid, with
    D > 1 under a normal one of the same variance.
    """
    responses, bank = _binary(responses, context)
    return _predicted(responses, bank, likeliest(responses, bank), context)


def gp_irt(responses: FloatArray, context: EstimatorContext) -> Estimates:
    """gp-IRT (Maia Polo et al., 2024): c * weighted + (1 - c) * p-IRT.

    c = b^2 / (b^2 + v / n), with v / (4 n) for clustered anchors, as in tinyBenchmarks; or fixed.
    """
    constants = context.gp_irt_constants
    if constants is None:
        raise InputError("gp_irt: no constants; compute them with `gp_irt_constants`")
    plain, model = weighted(responses, context), p_irt(responses, context)
    if not isinstance(constants, GpIrtConstants):
        if not 0 <= constants <= 1:
            raise InputError(f"gp_irt: c is {constants}; give a number from 0 to 1")
        return _blend(np.full(len(plain.value), float(constants)), plain, model)
    b, v = constants
    n = (~np.isnan(responses)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = v / (n * (4 if context.clustered_anchors else 1))
        c = b**2 / (b**2 + variance) if b > 0 else np.zeros(len(n))
    return _blend(c, plain, model)


def mp_irt(responses: FloatArray, context: EstimatorContext) -> Estimates:
    """mp-IRT (Mencattini et al., 2025): ability a linear mix of the endpoints', then as p-IRT.

    gamma = sum_j lambda_j gamma_j, lambda by maximum likelihood started at 1/J and not bounded.
    Endpoints whose abilities span all D dimensions (with one, any ability but 0) reach every
    gamma, so that mp-IRT is p-IRT: it warns.
    """
    responses, bank = _binary(responses, context)
    gammas = _endpoints(context, "mp_irt")
    if bank.dimensions > 1 and np.linalg.matrix_rank(gammas) == bank.dimensions:
        warnings.warn(
            f"mp_irt equals p_irt here: the endpoints' abilities span all {bank.dimensions} "
            "dimensions",
            stacklevel=2,
        )
    elif bank.dimensions == 1 and np.any(gammas != 0):
        warnings.warn(
            "mp_irt equals p_irt here: one dimension, and an endpoint's ability spans it",
            stacklevel=2,
        )
    return _predicted(responses, bank, mixture_weights(responses, context) @ gammas, context)


def gmp_irt(responses: FloatArray, context: EstimatorContext) -> Estimates:
    """gmp-IRT (Mencattini et al., 2025): c * weighted + (1 - c) * mp-IRT with c = 0.5."""
    c = np.full(len(responses), GMP_IRT_CONSTANT)
    return _blend(c, weighted(responses, context), mp_irt(responses, context))


def parent_irt(responses: FloatArray, context: EstimatorContext) -> Estimates:
    """Posterior mean of A under a prior centred on the endpoints.

    The prior is `context.parent_prior`, the same for all generations. Without endpoints it
    is that of the calibration models, N(0, `context.shift.ability_sd`^2), or N(0, I) with D > 1.

    A = [sum_S Y_i + sum_{i in U} sum_q w_q p_i(g_q)] / N, w the posterior over the grid (and over
    the shift, where the context has one); the interval holds the posterior's quantiles.
    """
    responses, bank = _binary(responses, context)
    gammas = context.endpoint_abilities
    alone = gammas is None or np.size(gammas) == 0
    if bank.dimensions > 1:
        parts = (
            multidimensional_accuracy.wide_prior(bank.dimensions, 1.0)
            if alone
            else multidimensional_accuracy.parent_prior_parts(
                _endpoints(context, "parent_irt"), context.parent_prior, bank
            )
        )
        return multidimensional_accuracy.accuracy_posterior(
            responses, bank, parts, widening=context.widening, level=context.level
        )
    if alone:
        prior = gaussian_weights(0.0, context.shift.ability_sd)
    else:
        prior = parent_prior_weights(_endpoints(context, "parent_irt"), context.parent_prior)
    return accuracy_posterior(
        responses,
        bank,
        prior,
        shift=context.shift,
        widening=context.widening,
        level=context.level,
    )


def full(responses: FloatArray, context: EstimatorContext) -> Estimates:
    """Mean of all N responses, of width zero; as `mean` for a candidate with unscored items."""
    return mean(responses, context)


def mixture_weights(responses: FloatArray, context: EstimatorContext) -> FloatArray:
    """mp-IRT's lambda (C, J), by maximum likelihood started at 1/J.

    The likelihood depends on lambda through gamma alone, so that a climb from 1/J moves along the
    endpoints' abilities only, to the maximum nearest to the start.
    """
    responses, bank = _binary(responses, context)
    gammas = _endpoints(context, "mp_irt")
    start = np.full(len(gammas), 1.0 / len(gammas))
    if bank.dimensions > 1:
        likeliest = multidimensional_ability.spanned_maximum_likelihood(
            responses, bank.discrimination, bank.difficulty, gammas
        )
        nearest: FloatArray = start + (likeliest - start @ gammas) @ np.linalg.pinv(gammas)
        return nearest
    best = maximum_likelihood(responses, bank)
    norm = float(gammas @ gammas)
    if norm == 0:
        return np.where(np.isnan(best)[:, None], np.nan, start)
    weights: FloatArray = start + np.outer(best - start @ gammas, gammas) / norm
    return weights


ESTIMATORS: dict[str, Estimator] = {
    "mean": mean,
    "weighted": weighted,
    "p_irt": p_irt,
    "gp_irt": gp_irt,
    "mp_irt": mp_irt,
    "gmp_irt": gmp_irt,
    "parent_irt": parent_irt,
    "full": full,
}


def _predicted(
    responses: FloatArray, bank: ItemBank, ability: FloatArray, context: EstimatorContext
) -> Estimates:
    """Seen responses and p_i(ability) for the unseen; interval of A under a flat prior."""
    asked = ~np.isnan(responses)
    value = np.where(asked, responses, bank.probability(ability)).mean(1)
    if bank.dimensions > 1:
        wide = multidimensional_accuracy.wide_prior(
            bank.dimensions, multidimensional_accuracy.FLAT_SD
        )
        return multidimensional_accuracy.accuracy_posterior(
            responses, bank, wide, value=value, widening=context.widening, level=context.level
        )
    flat = np.full(GRID.shape, 1 / GRID.size)
    return accuracy_posterior(
        responses, bank, flat, value=value, widening=context.widening, level=context.level
    )


def _blend(c: FloatArray, one: Estimates, other: Estimates) -> Estimates:
    """Blend by c, limits too: both errors come from one sample, so they are taken to add up."""
    return Estimates(*(c * x + (1 - c) * y for x, y in zip(one, other, strict=True)))


def _scores(responses: FloatArray) -> FloatArray:
    responses = np.asarray(responses, dtype=np.float64)
    if responses.ndim != 2 or responses.shape[1] == 0:
        raise InputError(f"responses: shape {responses.shape}; give one row a candidate")
    bad = ~np.isnan(responses) & ~((responses >= 0) & (responses <= 1))
    if bad.any():
        raise InputError(f"responses: {responses[bad][0]} is outside 0 to 1")
    return responses


def _binary(responses: FloatArray, context: EstimatorContext) -> tuple[FloatArray, ItemBank]:
    if context.bank is None:
        raise InputError("estimator: item response models need an item bank; or use 'mean'")
    if context.bank.dimensions > 1 and context.shift != NO_SHIFT:
        raise InputError(
            f"estimator: a shift beside {context.bank.dimensions} abilities; give a bank of one "
            "ability, or no shift"
        )
    return checked_responses(responses, context.bank), context.bank


def _endpoints(context: EstimatorContext, name: str) -> FloatArray:
    gammas, bank = context.endpoint_abilities, context.bank
    own = () if bank is None or bank.dimensions == 1 else (bank.dimensions,)
    if (
        gammas is None
        or not gammas.size
        or gammas.shape[1:] != own
        or not np.all(np.isfinite(gammas))
    ):
        raise InputError(f"{name}: needs each endpoint's ability, a finite number; got {gammas}")
    return gammas
