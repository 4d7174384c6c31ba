import time

import pytest

from mergelib.errors import TooSlow
from mergelib.search import parse_search
from mergelib.time_limit import TimeLimit


def search(content, seconds):
    return parse_search(content | {"compute": {"seconds_per_candidate": seconds}}, "here")


def test_without_a_limit_there_is_none(search_content):
    assert TimeLimit.of_merge(search(search_content, None), {"zoo": ["a"]}) is None


@pytest.mark.parametrize(("items", "seconds"), [(5, 2), (10, 2), (40, 8)])
def test_more_items_than_the_anchors_have_more_time(items, seconds, search_content, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = TimeLimit.of_merge(search(search_content, 2), {"zoo": [str(n) for n in range(items)]})
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds)
    limit.check()
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds + 0.01)
    said = rf"{items} items took longer than {seconds} s \(compute\.seconds_per_candidate\)"
    with pytest.raises(TooSlow, match=said):
        limit.check()
