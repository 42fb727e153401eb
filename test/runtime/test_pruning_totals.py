"""What pruning did is added up once."""

from safe_vla_ros.runtime.pruning_totals import PrunedPass, PruningTotals


def one(kept, reason=None, similarity=None):
    return PrunedPass(kept, 100, reason, similarity, 10 * kept, 1000)


def test_passes_add_up():
    totals = PruningTotals(
        [one(100, 'episode_start'), one(20), one(100, 'attention_shift'), one(20)]
    )
    assert (totals.passes, totals.full_passes, totals.key_steps) == (4, 2, 2)
    assert totals.reasons == {'episode_start': 1, 'attention_shift': 1}
    assert (totals.tokens_kept, totals.tokens_total, totals.kept_share) == (240, 400, 0.6)
    assert (totals.decoder_macs, totals.decoder_macs_full) == (2400, 4000)
    assert totals.key_step_share == 0.5


def test_a_full_pass_need_not_be_a_key_step():
    totals = PruningTotals([one(100)])
    assert (totals.full_passes, totals.key_steps) == (1, 0)


def test_nothing_has_no_shares():
    totals = PruningTotals()
    assert totals.kept_share is None
    assert totals.key_step_share is None
