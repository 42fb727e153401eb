"""Pixels under visual tokens."""

import torch

from safe_vla_ros.policies.patches import image_patches


def test_every_token_gets_the_pixels_of_its_place_in_all_channels():
    image = torch.arange(2 * 4 * 6).reshape(2, 4, 6)

    patches = image_patches(image, 2, 3)

    assert patches.shape == (6, 8)
    assert patches[0].tolist() == [0, 1, 6, 7, 24, 25, 30, 31]
    assert patches[4].tolist() == [14, 15, 20, 21, 38, 39, 44, 45]


def test_a_remainder_at_the_edge_is_left_out():
    image = torch.zeros(3, 9, 8, dtype=torch.uint8)
    image[:, 8] = 255

    assert image_patches(image, 4, 4).shape == (16, 12)
    assert not image_patches(image, 4, 4).any()
