"""Reading safetensors files straight into a module."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint_tensors import (
    load_parameters,
    load_tensor,
    read_header,
)

CPU = torch.device('cpu')
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]


@pytest.mark.parametrize('dtype', DTYPES)
def test_a_tensor_is_read_as_it_was_written(tmp_path, dtype):
    tensor = (torch.arange(24) - 3).to(dtype).reshape(2, 3, 4)
    save_file({'a': tensor, 'b': tensor + 1}, tmp_path / 'w.safetensors')
    header = read_header(tmp_path / 'w.safetensors')
    assert torch.equal(load_tensor(header['b']), tensor + 1)


def test_empty_and_scalar_tensors_are_read(tmp_path):
    save_file({'e': torch.zeros(0, 3), 's': torch.tensor(2.5)}, tmp_path / 'w.safetensors')
    header = read_header(tmp_path / 'w.safetensors')
    assert load_tensor(header['e']).shape == (0, 3)
    assert load_tensor(header['s']).item() == 2.5


def test_a_part_reads_only_its_rows(tmp_path):
    fused = torch.randn(9, 4)
    save_file({'qkv': fused}, tmp_path / 'w.safetensors')
    stored = read_header(tmp_path / 'w.safetensors')['qkv']
    assert torch.equal(load_tensor(stored.part(1, 3)), fused[3:6])
    assert torch.equal(load_tensor(stored.reshaped(36)), fused.flatten())


def test_no_header_length_is_mistaken_for_a_pickle(tmp_path):
    path = tmp_path / 'w.safetensors'
    first_bytes = set()
    for length in range(1, 120, 4):
        save_file({'k' * length: torch.zeros(2)}, path)
        assert read_header(path)
        first_bytes.add(path.read_bytes()[0])
    assert 0x80 in first_bytes


def test_parameters_are_converted_and_frozen(tmp_path):
    weight, bias = torch.randn(3, 2), torch.randn(3)
    save_file({'w': weight, 'b': bias}, tmp_path / 'w.safetensors')
    header = read_header(tmp_path / 'w.safetensors')
    with torch.device('meta'):
        module = nn.Linear(2, 3)
    sources = {'weight': header['w'], 'bias': header['b']}
    load_parameters(module, sources, device=CPU, dtype=torch.bfloat16)
    assert torch.equal(module.weight, weight.bfloat16())
    assert not module.bias.requires_grad


def test_a_parameter_without_a_source_is_named(tmp_path):
    with torch.device('meta'):
        module = nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match=r'Linear\.(weight|bias)'):
        load_parameters(module, {}, device=CPU, dtype=torch.float32)


def test_loading_peaks_below_1_15_times_the_weights(tmp_path):
    """The highest resident memory while loading 96 MB of bfloat16 in two shards."""
    layers, width = 12, 2048
    keys = [f'{layer}.weight' for layer in range(layers)]
    files = [tmp_path / 'a.safetensors', tmp_path / 'b.safetensors']
    for file, names in zip(files, (keys[::2], keys[1::2]), strict=True):
        save_file({key: torch.zeros(width, width, dtype=torch.bfloat16) for key in names}, file)
    sources = {key: stored for file in files for key, stored in read_header(file).items()}
    with torch.device('meta'):
        module = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(layers)])
    before = _peak_bytes(reset=True)
    load_parameters(module, sources, device=CPU, dtype=torch.bfloat16)
    weights = layers * width * width * 2
    assert _peak_bytes() - before < 1.15 * weights
    assert sum(parameter.nbytes for parameter in module.parameters()) == weights


def _peak_bytes(*, reset=False):
    status = Path('/proc/self/status')
    if not status.exists():
        pytest.skip('peak memory is read from /proc/self/status, which this system lacks')
    if reset:
        try:
            Path('/proc/self/clear_refs').write_text('5')
        except OSError:
            pytest.skip('the peak of resident memory cannot be reset here')
    fields = dict(line.split(':', 1) for line in status.read_text().splitlines() if ':' in line)
    return int(fields['VmRSS' if reset else 'VmHWM'].split()[0]) * 1024
