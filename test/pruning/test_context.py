"""Keys and values that outlive a step."""

import pytest
import torch

from safe_vla_ros.pruning import KeyValueContext


def make_context():
    return KeyValueContext.allocate(
        layers=2, heads=3, length=5, width=4, dtype=torch.float32, device=torch.device('cpu')
    )


@pytest.mark.parametrize(('length', 'megabytes'), [(604, 317), (291, 153)])
def test_its_size_at_the_7b_shapes_in_bfloat16(length, megabytes):
    context = KeyValueContext.allocate(
        layers=32,
        heads=32,
        length=length,
        width=128,
        dtype=torch.bfloat16,
        device=torch.device('meta'),
    )

    assert round(context.nbytes / 1e6) == megabytes


def test_a_full_write_fills_a_layer_and_gives_back_what_it_got():
    context = make_context()
    key, value = torch.rand(1, 3, 5, 4), torch.rand(1, 3, 5, 4)

    keys, values = context.write(1, key, value, None)

    assert keys is key
    assert values is value
    assert torch.equal(context.buffer[1, 0], key[0])
    assert torch.equal(context.buffer[1, 1], value[0])


def test_rows_overwrite_their_places_and_the_rest_stays_visible():
    context = make_context()
    old = torch.rand(2, 1, 3, 5, 4)
    context.write(0, old[0], old[1], None)
    key, value = torch.rand(1, 3, 2, 4), torch.rand(1, 3, 2, 4)

    keys, values = context.write(0, key, value, torch.tensor([1, 4]))

    assert keys.data_ptr() == context.buffer[0, 0].data_ptr()
    assert torch.equal(keys[:, :, [1, 4]], key)
    assert torch.equal(values[:, :, [1, 4]], value)
    assert torch.equal(keys[:, :, [0, 2, 3]], old[0][:, :, [0, 2, 3]])
    assert torch.equal(values[:, :, [0, 2, 3]], old[1][:, :, [0, 2, 3]])


def test_a_context_for_another_length_keeps_what_is_stored_of_visual_tokens():
    context = make_context()
    old = torch.rand(2, 1, 3, 5, 4)
    for layer in range(2):
        context.write(layer, old[0], old[1], None)

    longer = context.fitted(7, slice(1, 4))

    assert context.fitted(5, slice(1, 4)) is context
    assert longer.buffer.shape == (2, 2, 3, 7, 4)
    assert torch.equal(longer.buffer[:, :, :, 1:4], context.buffer[:, :, :, 1:4])
