import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.replay.metrics import Distribution, MetricSums

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def distribution(values):
    result = Distribution()
    for value in values:
        result.add(value)
    return result


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_mean_and_extremes_are_exact_and_quantiles_lie_between(values):
    summary = distribution(values).summary()
    assert summary['count'] == len(values)
    assert summary['mean'] == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert summary['min'] == min(values)
    assert summary['max'] == max(values)
    assert min(values) <= summary['p50'] <= summary['p95'] <= max(values)


@pytest.mark.parametrize('share', [0.05, 0.5, 0.95])
def test_quantiles_are_right_to_one_percent(share):
    values = np.random.default_rng(0).lognormal(3, 1, 5000)
    got = distribution(values).quantile(share)
    assert got == pytest.approx(np.quantile(values, share), rel=0.015)


@given(VALUES, st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_merging_parts_gives_the_whole(values, cut):
    whole = distribution(values)
    left = distribution(values[:cut])
    left.merge(distribution(values[cut:]))
    assert left.bins == whole.bins
    assert left.summary() == pytest.approx(whole.summary(), rel=1e-9, abs=1e-6)


@given(VALUES)
@settings(max_examples=30, deadline=None)
def test_json_keeps_everything(values):
    metrics = MetricSums()
    for value in values:
        metrics.add('a', value)
    metrics.count('b', 3)
    again = MetricSums.from_json(json.loads(json.dumps(metrics.to_json())))
    assert again.to_json() == metrics.to_json()


def test_size_does_not_grow_with_the_number_of_values():
    values = np.random.default_rng(0).lognormal(3, 0.5, 30_000)
    assert len(distribution(values).bins) < 400


def test_missing_values_are_ignored_and_non_finite_ones_counted():
    metrics = MetricSums()
    metrics.add('a', None)
    metrics.add('a', float('nan'))
    assert metrics.get('a').count == 0
    assert metrics.get('a').summary()['mean'] is None
    assert metrics.counts['a/not_finite'] == 1
