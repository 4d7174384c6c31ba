"""Who lets candidates answer: what a search file may say of it."""

from typing import Any

import pytest

from mergelib.errors import InputError
from mergelib.search import parse_search
from mergelib.sections.compute import Compute


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        ({"workers": 2}, r"compute\.workers: 2, but the runner local is this one process; give"),
        ({"cluster": "tcp://a:1"}, r"compute\.cluster: tcp://a:1 is of no use to the runner local"),
        ({"runner": "ray", "device": "cuda:1"}, r"compute\.device: cuda:1 names one GPU"),
        ({"runner": "rays"}, r"compute\.runner: 'rays': input should be 'local', 'dask' or 'ray'"),
        ({"runner": "dask", "workers": 0}, r"compute\.workers: 0: input should be greater than"),
    ],
)
def test_what_no_runner_can_do_is_refused_in_one_line(
    search_content: dict[str, Any], compute: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        parse_search(search_content | {"compute": compute}, "search.yaml")
    assert len(str(error.value).splitlines()) == 1


def test_workers_may_be_on_other_machines(search_content: dict[str, Any]) -> None:
    compute = {"runner": "dask", "workers": 100, "cluster": "tcp://head:8786", "device": "cuda"}
    assert parse_search(search_content | {"compute": compute}, "").compute.workers == 100


def test_workers_share_a_processors_threads_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert Compute().threads_for(10**6) == 1
    assert Compute().threads_for(10**9) is None
    assert Compute(runner="dask", workers=3).threads_for(10**9) == 2
    assert Compute(runner="ray", workers=16).threads_for(10**9) == 1
    assert Compute(runner="ray", workers=16, threads=4).threads_for(10**9) == 4
