"""Whoever loads a policy can be told how far it is, and can end it there."""

from itertools import pairwise

import pytest
from openvla_checkpoints import golden_settings, unpack_golden

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies.mini import load
from safe_vla_ros.policies.openvla_oft import load as load_oft
from safe_vla_ros.resources import find_share


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return unpack_golden('set1', tmp_path_factory.mktemp('oft'))


def test_the_share_of_the_bytes_grows_to_one(checkpoint):
    shares = []
    load_oft(checkpoint, golden_settings(), shares.append)
    assert len(shares) > 50
    assert 0.0 < shares[0] < 0.5
    assert all(earlier < later for earlier, later in pairwise(shares))
    assert shares[-1] == 1.0


def test_what_the_listener_raises_ends_the_load(checkpoint):
    heard = []

    def listen(share):
        heard.append(share)
        raise SafeVlaError('enough')

    with pytest.raises(SafeVlaError, match='enough'):
        load_oft(checkpoint, golden_settings(), listen)
    assert len(heard) == 1


def test_a_policy_that_is_read_in_one_piece_says_when_it_is_there():
    shares = []
    load(find_share('models') / 'mini_libero', golden_settings(), shares.append)
    assert shares == [1.0]
