"""Both published ways to fuse shallow saliency and its forecast."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.pruning.fusion import fuse

SHALLOW = torch.tensor([0.1, 0.2, 0.3])
FORECAST = torch.tensor([[0.4, 0.0, 0.2], [0.2, 0.2, 0.0]])


def test_paper_mode_is_convex():
    expected = torch.tensor([0.75 * 0.1 + 0.25 * 0.3, 0.75 * 0.2 + 0.25 * 0.1, 0.75 * 0.3 + 0.025])

    torch.testing.assert_close(fuse(SHALLOW, FORECAST, mode='paper', weight=0.25), expected)


def test_reference_mode_adds():
    expected = torch.tensor([0.1 + 0.5 * 0.3, 0.2 + 0.5 * 0.1, 0.3 + 0.5 * 0.1])

    torch.testing.assert_close(fuse(SHALLOW, FORECAST, mode='reference', weight=0.5), expected)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_published_weight_of_one_ranks_like_a_convex_half(seed):
    generator = torch.Generator().manual_seed(seed)
    shallow = torch.rand(30, generator=generator)
    forecast = torch.rand(2, 30, generator=generator)

    summed = fuse(shallow, forecast, mode='reference', weight=1.0)
    convex = fuse(shallow, forecast, mode='paper', weight=0.5)

    torch.testing.assert_close(summed, 2 * convex)
