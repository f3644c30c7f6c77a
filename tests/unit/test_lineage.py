"""The lineage manifest of a model, as a value."""

from __future__ import annotations

import json

from nbtools.tracking.lineage import manifest, missing


def made(context: dict) -> dict:
    return manifest(
        context, requirements=("a==1",), python="CPython 3.11", platform="x", metrics={}, created_at="now"
    )


def test_everything_that_is_missing_is_said_at_once() -> None:
    found = missing({"run": "r", "revision": {"commit": "c", "dirty": True}, "tracking_run": ""})
    assert len(found) == 2
    assert "uncommitted changes" in found[0]
    assert "not tracked" in found[1]


def test_manifest_survives_the_trip_through_json() -> None:
    context = {
        "run": "r",
        "params": {"token": {"secret": "TOKEN"}, "names": ["ü"]},
        "inputs": [{"dataset": "d", "digest": "0" * 64}],
        "upstream": [{"stage": "data.ingest", "outputs": []}],
    }
    found = made({**context, "stage": "train.fit"})
    assert json.loads(json.dumps(found)) == found
    assert found["stage"]["params"]["token"] == {"secret": "TOKEN"}


def test_manifest_without_a_run_keeps_its_shape_and_says_what_is_missing() -> None:
    found = made({})
    assert found.keys() == made({"run": "r", "stage": "s"}).keys()
    assert found["missing"] == list(missing({}))
