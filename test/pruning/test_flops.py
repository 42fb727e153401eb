"""Multiply-accumulates against the published figures."""

import pytest

from safe_vla_ros.pruning.flops import layer_macs, pass_macs

LLAMA_7B = {'width': 4096, 'mlp_width': 11008}


@pytest.mark.parametrize(
    ('full', 'kept', 'tera'),
    [(605, 605, 4.014), (605, 221, 1.685), (596, 596, 3.953), (596, 596 - 384, 1.625)],
)
def test_counts_match_the_published_figures(full, kept, tera):
    layers = 3 * [(full, full)] + 29 * [(kept, kept)]
    assert pass_macs(layers, **LLAMA_7B) / 1e12 == pytest.approx(tera, abs=5e-4)


def test_one_row_over_a_cache_attends_to_all_of_it():
    assert layer_macs(1, 8, 20, context=100) == 4 * 64 + 2 * 100 * 8 + 3 * 8 * 20
    assert layer_macs(5, 8, 20, context=5) == layer_macs(5, 8, 20)


@pytest.mark.parametrize(
    ('visual', 'others', 'keep', 'percent'),
    [(512, 92, 0.25, 36.4), (512, 92, 0.125, 25.8), (256, 35, 0.25, 34.0), (256, 35, 0.125, 23.0)],
)
def test_rows_over_stored_keys_match_the_figures_of_the_7b_shapes(visual, others, keep, percent):
    keys = visual + others
    rows = round(keep * visual) + others

    share = pass_macs(32 * [(rows, keys)], **LLAMA_7B) / pass_macs(32 * [(keys, keys)], **LLAMA_7B)

    assert 100 * share == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize(
    ('keep', 'after_k', 'merged', 'from_0'),
    [(0.25, 42.0, 56.6, 36.0), (0.125, 32.5, 47.0, 25.5), (0.0625, 27.7, 42.3, 20.3)],
)
def test_rows_that_leave_at_layer_k_or_before_the_first_match_the_table_of_the_methods(
    keep, after_k, merged, from_0
):
    kept, cells = round(keep * 512) + 93, 2 * 7 * 7

    def percent(*layers):
        rows = [(n, n) for n, count in layers for _ in range(count)]
        return 100 * pass_macs(rows, **LLAMA_7B) / pass_macs(32 * [(605, 605)], **LLAMA_7B)

    assert percent((605, 3), (kept, 29)) == pytest.approx(after_k, abs=0.05)
    assert percent((605, 3), (kept + cells, 29)) == pytest.approx(merged, abs=0.05)
    assert percent((kept, 32)) == pytest.approx(from_0, abs=0.05)


def test_heads_that_share_their_keys_project_fewer_of_them():
    n, width, mlp = 968, 2048, 16_384
    shared = layer_macs(n, width, mlp, query_width=2048, key_width=256)

    expected = 2 * n * width * 2048 + 2 * n * width * 256 + 2 * n * n * 2048 + 3 * n * width * mlp
    assert shared == expected < layer_macs(n, width, mlp)
    assert layer_macs(n, width, mlp, query_width=width, key_width=width) == layer_macs(
        n, width, mlp
    )
