"""Linear layers with packed weights."""

import weakref

import pytest
import torch
from torch import nn

from safe_vla_ros.policies import packed_linear
from safe_vla_ros.policies.packed_linear import (
    PackedLinear,
    can_pack,
    pack_for_cpu,
    pack_linears,
    weight_bytes,
)

pytestmark = pytest.mark.skipif(
    not can_pack(torch.float32), reason='torch was built without oneDNN'
)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('rows', [1, 7, 64])
def test_maps_like_the_layer_it_replaces(dtype, bias, rows):
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias).to(dtype)
    values = torch.randn(1, rows, 48).to(dtype)

    with torch.inference_mode():
        packed = PackedLinear(linear)(values)

        torch.testing.assert_close(packed, linear(values), atol=1e-2, rtol=1e-2)
    assert packed.shape == (1, rows, 80)


def test_every_linear_layer_is_replaced_and_its_plain_weight_freed():
    model = nn.Sequential(
        nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 4)), nn.LayerNorm(4)
    )

    before = weight_bytes(model)

    assert pack_linears(model) == 2

    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    assert sum(p.numel() for p in model.parameters()) == 8
    assert weight_bytes(model) == before


def test_plain_weights_do_not_pile_up_while_packing(monkeypatch):
    blocks = [nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(6)]
    weights = [weakref.ref(layer.weight) for block in blocks for layer in block]
    model = nn.ModuleList(blocks)
    del blocks
    alive = []

    def pack(linear):
        alive.append(sum(weight() is not None for weight in weights))
        return PackedLinear(linear)

    monkeypatch.setattr(packed_linear, 'PackedLinear', pack)
    pack_linears(model)

    # A block's own two may wait for the end of the block.
    assert all(count <= len(weights) - done + 2 for done, count in enumerate(alive))


@pytest.fixture
def fresh_trial():
    can_pack.cache_clear()
    yield
    can_pack.cache_clear()


def answer_wrongly(packed, values):
    return 1.1 * nn.functional.linear(values, torch.ones(160, 96, dtype=values.dtype))


def fail(packed, values):
    raise RuntimeError('no such kernel')


@pytest.mark.usefixtures('fresh_trial')
@pytest.mark.parametrize('kernel', [answer_wrongly, fail])
def test_kernels_that_answer_otherwise_are_not_used(monkeypatch, kernel):
    monkeypatch.setattr(PackedLinear, 'forward', kernel)
    model = nn.Sequential(nn.Linear(8, 8)).to(torch.bfloat16)

    assert pack_for_cpu(model, device=torch.device('cpu'), dtype=torch.bfloat16) == 0
    assert isinstance(model[0], nn.Linear)


@pytest.mark.parametrize(('device', 'dtype'), [('cpu', torch.float32), ('cuda', torch.bfloat16)])
def test_only_bfloat16_on_the_cpu_is_packed(device, dtype):
    model = nn.Sequential(nn.Linear(8, 8)).to(dtype)

    assert pack_for_cpu(model, None, device=torch.device(device), dtype=dtype) == 0
    assert isinstance(model[0], nn.Linear)
