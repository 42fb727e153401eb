"""CogACT: published actions from a directory, pruned as a masked run, repeated by its seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cogact_checkpoints import SET, cogact_settings, inputs, observation, write_cogact
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from safe_vla_ros.bench.golden_pruner import ToldPruner
from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.cogact_model import finish_actions
from safe_vla_ros.policies.image_preparation import resize_bicubic
from safe_vla_ros.policies.registry import load_policy, read_spec
from safe_vla_ros.pruning import PRUNER_NAMES
from safe_vla_ros.runtime.parameter_file import read_parameter_file
from safe_vla_ros.runtime.parameters import resolve
from safe_vla_ros.types import PruningSettings

NONE = PruningSettings(method='none', layer=2)
K, LAYERS, TOKENS = 2, 4, 25


@pytest.fixture(scope='module')
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cogact(tmp_path_factory.mktemp('cogact') / 'policy')


@pytest.fixture(scope='module')
def policy(directory: Path) -> Any:
    return load_policy(str(directory), cogact_settings())


def published(step: int) -> Any:
    """An episode that draws the noise of a golden observation."""
    return NoisyEpisode(0, draw=torch.from_numpy(inputs()['noise'][step]).view)


def predict(
    policy: Any, step: int, pruning: PruningSettings = NONE, memory: Any = None, **options: Any
) -> Any:
    image = torch.from_numpy(resize_bicubic(inputs()['image'][step], 70, 70))
    model = policy._model
    return model.predict(
        model.network.vision.normalize(image[None]),
        policy._encode_prompt(str(inputs()['tasks'][step])),
        None,
        episode=published(step) if memory is None else memory,
        pruning=pruning,
        stamp_s=float(step),
        **options,
    )


def test_the_spec_says_one_camera_and_sixteen_actions(directory: Path) -> None:
    spec = read_spec(str(directory))
    assert (spec.kind, spec.num_cameras, spec.chunk_size, spec.num_layers, spec.proprio_dim) == (
        'cogact',
        1,
        16,
        LAYERS,
        0,
    )
    assert spec.unnorm_keys == ('bridge_orig',)


@pytest.mark.parametrize('step', [0, 1])
def test_a_published_observation_gives_the_published_actions(policy: Any, step: int) -> None:
    with np.load(SET / 'full.npz') as full:
        actions = full['actions'][step]
    chunk = policy.infer(observation(step), published(step), NONE)
    np.testing.assert_allclose(chunk.translation_m, actions[:, :3], atol=1e-5)
    np.testing.assert_allclose(chunk.rotation_rad, actions[:, 3:6], atol=1e-5)
    np.testing.assert_allclose(chunk.gripper, actions[:, 6].clip(0, 1), atol=1e-5)


def actions_of(chunk: Any) -> np.ndarray:
    return np.column_stack([chunk.translation_m, chunk.rotation_rad, chunk.gripper])


def test_an_episode_repeats_its_actions_and_another_seed_makes_others(directory: Path) -> None:
    def episode(seed: int) -> list[np.ndarray]:
        policy = load_policy(str(directory), cogact_settings(seed=seed))
        memory = policy.new_episode()
        return [actions_of(policy.infer(observation(0), memory, NONE)) for _ in range(2)]

    first, second = episode(5)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.stack([first, second]), np.stack(episode(5)))
    assert not np.array_equal(first, episode(6)[0])


def test_the_gripper_opens_or_closes_wholly_after_the_clip() -> None:
    raw = np.array([[2.0, -3.0, 0.5, 0.0, 0.0, 0.0, value] for value in (0.49, 0.5, 7.0, -7.0)])
    actions = finish_actions(raw.astype(np.float32))
    assert actions[:, 6].tolist() == [0.0, 1.0, 1.0, 0.0]
    assert actions[0, :3].tolist() == [1.0, -1.0, 0.5]


@torch.inference_mode()
def masked_run(model: Any, sequence: Any, kept: torch.Tensor, layer: int) -> torch.Tensor:
    """The cognition token of a pass over all rows that from a layer on hides dropped keys."""
    decoder, hidden = model.network.decoder, sequence.embeddings
    length = hidden.shape[1]
    rotary = decoder.rotary_emb(hidden, position_ids=torch.arange(length)[None])
    forbidden = torch.ones(length, length).triu(1).bool()
    dropped = torch.ones(length, dtype=torch.bool)
    dropped[: sequence.visual.start] = dropped[sequence.visual.stop :] = False
    dropped[kept + sequence.visual.start] = False
    for index, block in enumerate(decoder.layers):
        hide = forbidden | dropped if index >= layer else forbidden
        # A row that sees nothing would be NaN; nobody looks at dropped rows any more.
        hide = hide & ~torch.eye(length, dtype=torch.bool)
        mask = torch.zeros(1, 1, length, length).masked_fill(hide, -torch.inf)
        hidden = block(hidden, attention_mask=mask, position_embeddings=rotary, is_causal=False)
    return decoder.norm(hidden)[0, -1]


@settings(max_examples=15, deadline=None)
@given(
    st.sets(st.integers(0, TOKENS - 1), min_size=1, max_size=TOKENS),
    st.integers(0, LAYERS - 1),
    st.integers(0, 3),
)
def test_a_pruned_run_is_a_run_that_hides_what_was_dropped(
    policy: Any, chosen: set[int], layer: int, step: int
) -> None:
    network, kept = policy._model.network, torch.tensor(sorted(chosen))
    image = torch.from_numpy(resize_bicubic(inputs()['image'][step], 70, 70))
    with torch.inference_mode():
        pixels = network.vision.normalize(image[None])
        ids = policy._encode_prompt(str(inputs()['tasks'][step]))
        sequence = network.assemble(network.encode(pixels), ids)
    expected = masked_run(policy._model, sequence, kept, layer)
    got = predict(policy, step, pruner=ToldPruner(kept=kept, layer=layer)).states[0]
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize('method', [name for name in PRUNER_NAMES if name != 'none'])
def test_keeping_everything_equals_no_pruning_bit_for_bit(policy: Any, method: str) -> None:
    pruning = PruningSettings(method=method, keep_ratio=1.0, layer=K, refresh_threshold=-1.0)
    memory = policy.new_episode()
    for step in range(3):
        memory._draw = torch.from_numpy(inputs()['noise'][step]).view
        kept = predict(policy, step, pruning, memory)
        assert np.array_equal(kept.raw_actions, predict(policy, step).raw_actions)


@pytest.mark.parametrize('method', [name for name in PRUNER_NAMES if name != 'none'])
def test_every_method_prunes_the_prefill(policy: Any, method: str) -> None:
    pruning = PruningSettings(
        method=method, keep_ratio=0.4, layer=K, refresh_threshold=-1.0, max_staleness=0.0
    )
    memory = policy.new_episode()
    seen = [replace(observation(step), instruction='open the drawer') for step in range(4)]
    chunks = [policy.infer(one, memory, pruning) for one in seen]
    records = [chunk.record for chunk in chunks]
    assert all(chunk.is_finite() for chunk in chunks)
    assert sum(records[-1].kept.values()) == round(0.4 * TOKENS)
    assert records[-1].decoder_macs < records[-1].decoder_macs_full
    assert records[-1].stage_macs == records[0].stage_macs


def test_the_cognition_token_is_both_action_and_last_row(policy: Any) -> None:
    kept = []
    for rows in ('action', 'last'):
        pruning = PruningSettings(keep_ratio=0.4, layer=K, refresh_threshold=-1.0, query_rows=rows)
        memory = policy.new_episode()
        predict(policy, 0, pruning, memory)
        kept.append(predict(policy, 1, pruning, memory).output.kept)
    assert torch.equal(*kept)


def test_refresh_of_an_unchanged_picture_changes_nothing(policy: Any) -> None:
    pruning = PruningSettings(method='refresh', keep_ratio=0.2, max_staleness=0.0)
    memory = policy.new_episode()
    memory._draw = published(0)._draw
    whole = predict(policy, 0, pruning, memory)
    renewed = predict(policy, 0, pruning, memory)
    assert renewed.output.pruned
    assert not whole.output.pruned
    np.testing.assert_allclose(renewed.raw_actions, whole.raw_actions, atol=1e-5)


def test_what_comes_after_the_cognition_token_could_not_change_it(policy: Any) -> None:
    """Causal: the state of the row before the last does not see the last."""
    network = policy._model.network
    states = []
    for last in (2, 3):
        ids = [*policy._encode_prompt('pick up the mug')[:-1], last]
        image = torch.zeros(1, 70, 70, 3, dtype=torch.uint8)
        with torch.inference_mode():
            sequence = network.assemble(network.encode(network.vision.normalize(image)), ids)
            output = network.decode(
                sequence,
                cameras=1,
                causal=True,
                episode=policy.new_episode().pruning,
                pruning=NONE,
                stamp_s=0.0,
            )
        states.append(output.hidden[0, -2])
    assert torch.equal(*states)


def test_a_pass_without_finite_actions_is_refused_and_takes_no_noise(
    policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = policy.new_episode()
    expected = actions_of(policy.infer(observation(0), policy.new_episode(), NONE))
    with monkeypatch.context() as broken:
        broken.setattr(
            'safe_vla_ros.policies.cogact_model.sample',
            lambda *_, **__: torch.full((16, 7), torch.nan),
        )
        with pytest.raises(NonFiniteError, match='actions of the diffusion head: NaN'):
            policy.infer(observation(0), memory, NONE)
    again = policy.infer(observation(0), memory, NONE)
    np.testing.assert_array_equal(actions_of(again), expected)


def counted_macs(work: Any) -> int:
    counter = FlopCounterMode(display=False)
    # The fused kernels of the CPU are not counted.
    with counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        work()
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize('guidance', [1.0, 1.5])
def test_the_operations_around_the_decoder_are_those_that_run(policy: Any, guidance: float) -> None:
    model = policy._model
    pixels = torch.zeros(1, 6, 70, 70)
    macs = model.network.encode_macs(1)
    assert macs['vision'] == counted_macs(lambda: model.network.vision(pixels))
    assert sum(macs.values()) == counted_macs(lambda: model.network.encode(pixels))
    rows = 2 if guidance > 1 else 1
    actions, condition = torch.zeros(rows, 16, 7), torch.zeros(rows, 64)
    once = counted_macs(lambda: model.head(actions, torch.zeros(rows), condition))
    unguided, model.guidance = model.guidance, guidance
    try:
        assert model.head_macs() == 10 * once
        record = policy.infer(observation(0), policy.new_episode(), NONE).record
    finally:
        model.guidance = unguided
    assert record.stage_macs == {**macs, 'head': 10 * once}


def test_averages_of_training_are_not_used(directory: Path, tmp_path: Path, policy: Any) -> None:
    def add_averages(groups: Any) -> None:
        zeros = {key: torch.zeros_like(value) for key, value in groups['action_model'].items()}
        groups['ema_diffusion'] = zeros

    other = load_policy(str(write_cogact(tmp_path / 'ema', add_averages)), cogact_settings())
    np.testing.assert_array_equal(predict(other, 0).raw_actions, predict(policy, 0).raw_actions)


def test_guidance_and_steps_come_from_the_policy_file(tmp_path: Path) -> None:
    text = '  cfg_scale: 1\n  ddim_steps: 5\n'
    policy = load_policy(str(write_cogact(tmp_path / 'policy', text=text)), cogact_settings())
    seen: list[Any] = []
    predict(policy, 0, observe=seen.append)
    assert [step.unconditional for step in seen] == [None] * 5


def test_weights_in_bfloat16_run_and_the_head_stays_in_float32(directory: Path) -> None:
    policy = load_policy(str(directory), cogact_settings(dtype='bfloat16'))
    assert policy._model.head.positional_embedding.dtype == torch.float32
    got = predict(policy, 0)
    assert got.raw_actions.dtype == np.float32
    assert np.isfinite(got.raw_actions).all()


def test_progress_reaches_the_whole(directory: Path) -> None:
    shares: list[float] = []
    load_policy(str(directory), cogact_settings(), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert 0 < shares[0] < 1


def test_pixels_are_exactly_those_of_the_published_transforms(policy: Any) -> None:
    with np.load(SET / 'full.npz') as full:
        expected = full['pixel_values'][2]
    image = policy._prepare(inputs()['image'][2])
    pixels = policy._model.network.vision.normalize(torch.from_numpy(image)[None])
    np.testing.assert_array_equal(pixels[0].numpy(), expected)


def test_a_checkpoint_of_the_worked_robot_loads_with_its_yaml(directory: Path) -> None:
    file = Path(__file__).parents[2] / 'config' / 'cogact_bridge.yaml'
    values = read_parameter_file(file)
    assert values['pruning.forecast_layers'] == [31]
    # The golden checkpoint has four layers only.
    values |= {'pruning.forecast_layers': [LAYERS - 1], 'policy': str(directory)}
    resolved = resolve(values, read_spec(str(directory)), pruner_names=PRUNER_NAMES)
    policy = load_policy(str(directory), replace(resolved.policy, device='cpu'))
    assert resolved.control.blending == 'cogact_ensemble'
    assert resolved.control.ensemble_horizon <= policy.spec.chunk_size
    assert len(policy.infer(observation(0), policy.new_episode(), resolved.pruning)) == 16
