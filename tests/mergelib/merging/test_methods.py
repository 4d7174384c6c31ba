import pytest
import torch
from mergekit.merge_methods import get
from mergekit.merge_methods.base import TensorGroup

from mergelib.merging.methods import (
    check_models,
    check_parameter,
    check_together,
    elects_signs,
    ignored_parameters,
    is_pairwise,
    is_per_model,
    merge_methods,
    parameter_spec,
    takes_base,
)


@pytest.mark.parametrize(
    ("method", "parameter", "low", "high"),
    [
        ("slerp", "t", 0, 1),
        ("ties", "density", 0, 1),
        ("breadcrumbs", "gamma", 0, 1),
        ("della", "epsilon", 0, 0.5),
        ("sce", "select_topk", 0, 1),
    ],
)
def test_limits_are_inclusive(method, parameter, low, high):
    check_parameter(method, parameter, low, searched=True)
    check_parameter(method, parameter, high, searched=False)
    for outside in (low - 0.01, high + 0.01):
        message = f"^merge.parameters.{parameter}: {outside:g} is out of range; allowed: {low:g} to"
        with pytest.raises(ValueError, match=message):
            check_parameter(method, parameter, outside, searched=True)


@pytest.mark.parametrize(("parameter", "value"), [("weight", -3.0), ("lambda", 40), ("weight", 0)])
def test_weights_have_no_limits(parameter, value):
    check_parameter("task_arithmetic", parameter, value, searched=True)


@pytest.mark.parametrize(
    ("method", "parameter", "value", "searched", "message"),
    [
        ("ties", "wieght", 1.0, True, "'wieght' is not a parameter of ties; did you mean 'weight'"),
        ("slerp", "weight", 1.0, True, "'weight' is not a parameter of slerp; Allowed: t"),
        ("arcee_fusion", "t", 0.5, True, "arcee_fusion takes no parameters"),
        ("ties", "weight", float("nan"), False, "nan must be a finite number"),
        ("ties", "weight", float("inf"), True, "inf must be a finite number"),
        ("ties", "weight", True, False, "True must be a finite number"),
        ("ties", "weight", "high", False, "'high' must be a finite number$"),
        ("ties", "weight", "1e-5", False, "must be a finite number; YAML .* write 1.0e-5"),
        ("ties", "normalize", 1, False, "1 must be true or false"),
        ("ties", "normalize", 0.0, True, "is true or false and cannot be searched"),
        ("karcher", "max_iter", 2.5, False, "2.5 must be a whole number"),
        ("karcher", "max_iter", 2.5, True, "2.5 must be a whole number"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_path(method, parameter, value, searched, message):
    with pytest.raises(ValueError, match=f"^merge.parameters.{parameter}: .*{message}"):
        check_parameter(method, parameter, value, searched=searched)


def test_right_values_of_other_types_pass():
    check_parameter("ties", "normalize", False, searched=False)
    check_parameter("karcher", "max_iter", 20, searched=False)


def test_a_recipes_own_place_is_named():
    place = "models.0.parameters.weight.2"
    with pytest.raises(ValueError, match=f"^{place}: nan must be a finite number"):
        check_parameter("ties", "weight", float("nan"), searched=False, where=place)
    with pytest.raises(ValueError, match="^parameters.t: arcee_fusion .*; leave it out$"):
        check_parameter("arcee_fusion", "t", 1, searched=False, where="parameters.t")
    for value in ("x", 10**400):
        with pytest.raises(ValueError, match="^here: .* must be a finite number"):
            check_parameter("passthrough", "scale", value, searched=False, where="here")


def test_what_a_method_never_reads_cannot_be_searched_but_given():
    check_parameter("task_arithmetic", "density", 0.5, searched=False)
    message = (
        "^merge.parameters.density: is ignored by task_arithmetic and cannot be searched; methods "
        "that use it: breadcrumbs, breadcrumbs_ties, dare_linear, dare_ties, della, della_linear, "
        "ties$"
    )
    with pytest.raises(ValueError, match=message):
        check_parameter("task_arithmetic", "density", 0.5, searched=True)


FAMILY = sorted(m for m, s in merge_methods().items() if "lambda" in {p.name for p in s.parameters})


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize(("parameter", "value"), [("density", 0.5), ("rescale", True)])
def test_the_ignored_parameters_are_those_that_change_nothing(method, parameter, value):
    torch.manual_seed(0)
    group = TensorGroup.from_tensors(list(torch.randn(3, 8, 8)), base_index=0)

    def merged(**parameters: object) -> torch.Tensor:
        torch.manual_seed(0)
        given = {"weight": 1.0, "density": 0.7, "rescale": False, **parameters}
        return get(method)((group,), parameters=given)[0]

    same = torch.equal(merged(), merged(**{parameter: value}))
    assert same == (parameter in ignored_parameters(method))


def test_ignored_parameters_and_elections_of_signs():
    assert ignored_parameters("task_arithmetic") == {"density", "rescale", "int8_mask"}
    assert {m for m in merge_methods() if ignored_parameters(m) == {"int8_mask"}} == {
        *("dare_linear", "breadcrumbs", "della_linear")
    }
    assert {m for m in merge_methods() if elects_signs(m)} == {
        *("ties", "dare_ties", "breadcrumbs_ties", "della")
    }


@pytest.mark.parametrize("method", sorted(merge_methods()))
def test_required_parameters_are_asked_for(method):
    required = [spec.name for spec in merge_methods()[method].parameters if spec.required]
    check_together(method, {name: (0.5,) for name in required})
    for name in required:
        with pytest.raises(ValueError, match=f"^merge.parameters.{name}: is required by {method}"):
            check_together(method, {other: (0.5,) for other in required if other != name})


@pytest.mark.parametrize(
    ("density", "epsilon", "fits"),
    [
        ((0.2, 0.8), 0.15, True),
        ((0.5, 1.0), 0.15, False),
        ((0.1, 0.5), 0.15, False),
        ((0.5,), 0.3, True),
        ((0.7,), 0.3, False),
        ((1.0,), 0.3, True),
        ((0,), 0.3, True),
    ],
)
def test_dellas_density_and_epsilon_must_fit(density, epsilon, fits):
    ends = {"weight": (0.0, 1.0), "density": density, "epsilon": (epsilon,)}
    if fits:
        check_together("della", ends)
    else:
        with pytest.raises(ValueError, match=r"^merge.parameters.density: .* allowed: above 0\."):
            check_together("della", ends)


def test_dellas_default_epsilon_counts():
    with pytest.raises(ValueError, match=r"epsilon 0\.15"):
        check_together("della_linear", {"weight": (1.0,), "density": (0.9,)})


def test_other_methods_have_no_such_limit():
    check_together("breadcrumbs", {"weight": (1.0,), "density": (0.0, 1.0)})
    check_together("dare_ties", {"weight": (1.0,), "density": (0.0, 1.0)})


def test_pairwise_methods_and_those_with_a_base():
    methods = merge_methods()
    assert {m for m in methods if is_pairwise(m)} == {"slerp", "nearswap", "arcee_fusion"}
    assert {m for m in methods if not takes_base(m)} == {
        *("slerp", "nearswap", "arcee_fusion", "linear", "karcher", "passthrough")
    }


def test_weights_belong_to_a_model_and_t_to_all():
    assert is_per_model(parameter_spec("linear", "weight"))
    assert is_per_model(parameter_spec("ties", "density"))
    assert not is_per_model(parameter_spec("slerp", "t"))
    assert not is_per_model(parameter_spec("ties", "lambda"))


@pytest.mark.parametrize(
    ("method", "endpoints", "has_base", "message"),
    [
        ("task_arithmetic", 2, False, "base: is required by task_arithmetic"),
        ("slerp", 3, False, "endpoints: slerp merges at most 2 models, 3 are named"),
        ("nuslerp", 3, True, "endpoints: nuslerp merges at most 2 models, 3 are named"),
        ("passthrough", 2, False, "at most 1 models"),
        ("model_stock", 1, True, "endpoints: model_stock needs at least 3 models, 2 are named"),
        ("slerp", 1, True, "at least 2 models, 1 are named"),
    ],
)
def test_models_that_do_not_fit_the_method(method, endpoints, has_base, message):
    with pytest.raises(ValueError, match=message):
        check_models(method, endpoints, has_base=has_base)


@pytest.mark.parametrize(
    ("method", "endpoints", "has_base"),
    [
        ("slerp", 2, False),
        ("slerp", 2, True),
        ("linear", 7, False),
        ("nuslerp", 2, False),
        ("nuslerp", 2, True),
        ("model_stock", 2, True),
        ("ties", 5, True),
    ],
)
def test_models_that_fit_the_method(method, endpoints, has_base):
    check_models(method, endpoints, has_base=has_base)
