"""Laying out token sequences: every text is whole, sees itself alone, and shares what it can."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergelib.benchmarks.prefixes import Layout, Span, common, gather, lay_out

CPU = torch.device("cpu")

texts = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)
beginnings = st.lists(st.integers(0, 2), max_size=6).map(tuple)


@st.composite
def span_lists(draw: st.DrawFn) -> list[Span]:
    beginning = draw(beginnings)
    spans = []
    for text in draw(st.lists(texts, min_size=1, max_size=9)):
        tokens = (*beginning, *text)
        spans.append(Span(tokens, draw(st.integers(1, len(tokens)))))
    return spans


def _column_tokens(layout: Layout, number: int) -> list[int]:
    """What the cache holds when a pack has gone through: the trunk comes with the first."""
    pack = layout.packs[number]
    trunk = layout.packs[0].tokens[0, : layout.trunk].tolist() if pack.start else []
    return trunk + pack.tokens[0].tolist()


@settings(deadline=None, max_examples=200)
@given(span_lists(), st.integers(1, 30))
def test_every_text_is_whole_and_sees_its_own_tokens_alone(
    spans: list[Span], capacity: int
) -> None:
    layout = lay_out(spans, capacity, CPU)
    for span, place in zip(spans, layout.places, strict=True):
        pack = layout.packs[place.pack]
        tokens = _column_tokens(layout, place.pack)
        assert [tokens[c] for c in place.columns] == list(span.tokens)
        assert pack.positions[place.columns].tolist() == list(range(len(span.tokens)))
        visible = pack.visible()
        for depth, column in enumerate(place.columns.tolist()):
            if column >= pack.start:
                seen = visible[column - pack.start].nonzero()[:, 0].tolist()
                assert seen == place.columns[: depth + 1].tolist()
        read = pack.reads[place.rows] + pack.start
        assert read.tolist() == place.columns[-span.reads :].tolist()


@settings(deadline=None, max_examples=200)
@given(span_lists(), st.integers(1, 30))
def test_packs_keep_to_their_size_and_compute_what_is_shared_once(
    spans: list[Span], capacity: int
) -> None:
    layout = lay_out(spans, capacity, CPU)
    for number, pack in enumerate(layout.packs):
        own = [s for s, p in zip(spans, layout.places, strict=True) if p.pack == number]
        added = len(pack.positions) - layout.trunk
        distinct = {s.tokens[:n] for s in own for n in range(layout.trunk + 1, len(s.tokens) + 1)}
        assert added == len(distinct)
        assert added <= capacity or len({s.tokens for s in own}) == 1
        positions = pack.positions[pack.start :]
        assert pack.depths == float(positions.sum()) + len(positions) / 2
    shared = spans[0].tokens
    for span in spans:
        shared = shared[: common(shared, span.tokens)]
    assert layout.trunk == min([len(shared), *(len(s.tokens) - s.reads for s in spans)])
    assert layout.columns == max(len(pack.positions) for pack in layout.packs)


@given(texts, texts)
def test_what_two_texts_have_in_common(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    count = common(one, other)
    assert one[:count] == other[:count]
    assert count == min(len(one), len(other)) or one[count] != other[count]


def test_benchmarks_whose_prompts_begin_alike_stay_apart() -> None:
    long, other = tuple(range(40)), tuple(range(50, 90))
    groups = [[(*long, 1), (*long, 2)], [(1, 2), (3,)], [(4, 5, 6)], [(*other, 1), other], []]
    assert gather(groups, lambda tokens: tokens) == [
        groups[0],
        groups[3],
        [(1, 2), (3,), (4, 5, 6)],
    ]
