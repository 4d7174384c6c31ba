"""Where a search's models and benchmarks lie: that may change under a run; what lies there may not.

A run remembers a digest of everything that its search file names (`Workbench.contents`), under the
name at which it lay. Moved models are recognised by theirs, and recipes that were written before
are read with the new names.
"""

import re
from collections.abc import Mapping
from pathlib import PurePath

from mergelib.recipes import Recipe
from mergelib.search import Search

_PLACE = re.compile(
    r"base|endpoints|(objectives|constraints)\.\d+\.(benchmark(\.(file|fresh|examples))?|scorer)"
    r"|fitness\.calibration\.source"
)


def is_place(key: str) -> bool:
    """Whether a search file's key, dotted, says where something lies."""
    return _PLACE.fullmatch(key) is not None


def models_of(search: Search) -> list[str]:
    """The references of a search's models, in the file's order."""
    return [*([] if search.base is None else [search.base]), *search.endpoints]


def same_models(
    old: Search,
    new: Search,
    before: Mapping[str, str],
    now: Mapping[str, str],
    earlier: Mapping[str, str],
) -> bool:
    """Whether two searches name the same models in the same order, wherever they lie.

    Args:
        old: a run's search.
        new: the search that it shall go on with.
        before: the run's digests, by reference.
        now: those of the new search.
        earlier: the run's moves before; see `moves`.

    Returns:
        False also where a model lies now at another one's former place: of a recipe written
        before, nobody could say which of the two it means.
    """
    were = [before.get(reference) for reference in models_of(old)]
    are = [now.get(reference) for reference in models_of(new)]
    if None in are or were != are:
        return False
    return moves(old, new, earlier).keys().isdisjoint(models_of(new))


def moves(old: Search, new: Search, earlier: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where models lie now, by each reference that a recipe of the run may hold in its place.

    Args:
        old: the run's search.
        new: the same with other references.
        earlier: the moves before that.
    """
    pairs = zip(models_of(old), models_of(new), strict=True)
    step = {was: now for was, now in pairs if was != now}
    followed = {was: step.get(now, now) for was, now in (earlier or {}).items()}
    return {was: now for was, now in (followed | step).items() if was != now}


def changed(
    old: Search, new: Search, before: Mapping[str, str], now: Mapping[str, str]
) -> str | None:
    """The first thing whose content is not what it was; None if all is.

    Models count by their place in the search file, benchmarks by their task's name, files by their
    order. Arguments as in `same_models`.
    """
    for was, reference in zip(models_of(old), models_of(new), strict=True):
        if before.get(was) != now.get(reference):
            return reference
    rest_before, rest_now = _others(old, before), _others(new, now)
    for (was, old_digest), (name, digest) in zip(rest_before, rest_now, strict=False):
        files = PurePath(was).is_absolute() and PurePath(name).is_absolute()
        if digest != old_digest or (was != name and not files):
            return was
    longer = max(rest_before, rest_now, key=len)
    shorter = min(len(rest_before), len(rest_now))
    return longer[shorter][0] if len(longer) > shorter else None


def with_models_at(recipe: str, moved: Mapping[str, str]) -> str:
    """A recipe's YAML with the names that models have now.

    Args:
        recipe: the YAML.
        moved: see `moves`.
    """
    if not moved:
        return recipe
    config = Recipe.from_yaml(recipe).with_models(lambda name: moved.get(name, name))
    return Recipe(config).to_yaml()


def _others(search: Search, contents: Mapping[str, str]) -> list[tuple[str, str]]:
    """The digests of what is no model, in order."""
    models = set(models_of(search))
    return [(name, digest) for name, digest in contents.items() if name not in models]
