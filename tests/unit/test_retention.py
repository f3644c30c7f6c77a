from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbtools.pipeline.fingerprint import Ingredients
from nbtools.pipeline.plan import Completion
from nbtools.pipeline.retention import objects_of, worth_keeping


def _result(fingerprint: str, at: float) -> Completion:
    return Completion(
        "a.b",
        fingerprint,
        Ingredients(code=(), params={}),
        {"out": f"o{at}"},
        executed=f"e{at}",
        finished_at=at,
    )


RESULTS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 100)), max_size=12).map(
    lambda items: {number: _result(name, at) for number, (name, at) in enumerate(items)}
)


@given(
    RESULTS,
    st.sets(st.integers(0, 11)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 100)),
    st.integers(0, 100),
)
def test_what_is_in_use_or_was_used_lately_is_kept(
    results: dict[int, Completion], in_use: set[int], uses: dict[str, float], since: int
) -> None:
    kept = worth_keeping(results, in_use, uses, since)

    assert in_use & set(results) <= kept <= set(results)
    for number, result in results.items():
        newest = max(other for other, found in results.items() if found.fingerprint == result.fingerprint)
        recent = max(result.finished_at, uses.get(result.fingerprint, 0)) >= since
        assert (number in kept) == (number in in_use or (recent and number == newest))


def test_what_was_reused_yesterday_is_kept_though_it_was_made_long_ago() -> None:
    results = {1: _result("old", 10), 2: _result("older", 5)}
    assert worth_keeping(results, (), {"old": 99.0}, since=90) == {1}


def test_a_result_names_its_outputs_and_notebooks() -> None:
    assert objects_of([_result("x", 1)]) == {"o1", "e1"}
