"""Linear layers with packed weights."""

import pytest
import torch
from torch import nn

from safe_vla_ros.policies.packed_linear import PackedLinear, can_pack, pack_linears

pytestmark = pytest.mark.skipif(not can_pack(), reason='torch was built without oneDNN')


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('rows', [1, 7, 64])
def test_maps_like_the_layer_it_replaces(dtype, bias, rows):
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias).to(dtype)
    values = torch.randn(1, rows, 48).to(dtype)

    with torch.inference_mode():
        packed = PackedLinear(linear, rows=32)(values)

        torch.testing.assert_close(packed, linear(values), atol=1e-2, rtol=1e-2)
    assert packed.shape == (1, rows, 80)


def test_every_linear_layer_is_replaced_and_its_plain_weight_freed():
    model = nn.Sequential(
        nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 4)), nn.LayerNorm(4)
    )

    assert pack_linears(model, rows=16) == 2

    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    assert sum(p.numel() for p in model.parameters()) == 8
