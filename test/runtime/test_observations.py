"""What is asked of inputs before the policy sees them, and what bad ones lead to."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from runtime_fakes import PERIOD_S, Bench, FakePolicy, ManualClock, control, steady_chunk

from safe_vla_ros.errors import NonFiniteError, ObservationError, ParameterError
from safe_vla_ros.runtime import PolicyRuntime, StateName
from safe_vla_ros.runtime.image_decoding import AnyImage, CompressedImage, RawImage
from safe_vla_ros.types import ActionChunk, MessageHeader, Observation, PruningSettings

TWO_CAMERAS = ('front', 'wrist')


def two_cameras(**settings: object) -> Bench:
    return Bench(FakePolicy(cameras=TWO_CAMERAS), settings=control(**settings))


def put(bench: Bench, camera: str, stamp_s: float, value: int = 0) -> None:
    image = np.full((4, 4, 3), value, np.uint8)
    bench.runtime.put_image(camera, image, header=MessageHeader.at(stamp_s))


def feed_with(bench: Bench, image: AnyImage, ticks: int = 50) -> None:
    """Feed the same bad image again and again, with new stamps."""
    for _ in range(ticks):
        bench.runtime.put_image('front', image, header=MessageHeader.at(bench.now_s))
        bench.infer()
        bench.runtime.tick()
        bench.pass_time()


def test_an_observation_holds_the_newest_images_in_the_models_order() -> None:
    bench = two_cameras()
    bench.pass_time()
    put(bench, 'wrist', 10.01, 2)
    put(bench, 'front', 10.0, 1)
    put(bench, 'front', 10.02, 3)
    bench.infer()
    observation = bench.policy.observations[0]
    assert list(observation.images) == ['front', 'wrist']
    assert observation.images['front'].max() == 3
    stamps = {name: header.stamp_s for name, header in observation.image_headers.items()}
    assert stamps == {'front': 10.02, 'wrist': 10.01}
    assert observation.stamp_s == 10.01
    assert observation.instruction == 'reach'
    assert observation.proprio is None


NOW_NS = 1_700_000_000_123_456_789
"""A time of today; a float of seconds holds it to a quarter of a microsecond only."""


@pytest.mark.parametrize('decodable', [True, False])
def test_headers_reach_the_report_exactly(decodable: bool) -> None:
    bench = two_cameras()
    bench.clock.set(NOW_NS * 1e-9 + 0.01)
    headers = {
        'front': MessageHeader(NOW_NS + 1, 'front_optical'),
        'wrist': MessageHeader(NOW_NS, 'wrist_optical'),
    }
    image = np.zeros((4, 4, 3), np.uint8) if decodable else CompressedImage('jpeg', b'')
    for camera, header in headers.items():
        bench.runtime.put_image(camera, image, header=header)
    bench.infer()
    report = bench.reports[0]
    assert report.job.header == headers['wrist']
    if decodable:
        assert report.outcome.observation is not None
        assert report.outcome.observation.image_headers == headers
    else:
        assert report.outcome.observation is None


def test_images_exactly_as_far_apart_as_allowed_are_used() -> None:
    bench = two_cameras(max_camera_skew_s=0.05)
    bench.clock.set((NOW_NS + 50_000_001) * 1e-9)
    image = np.zeros((4, 4, 3), np.uint8)
    bench.runtime.put_image('wrist', image, header=MessageHeader(NOW_NS))
    bench.runtime.put_image('front', image, header=MessageHeader(NOW_NS + 50_000_001))
    bench.infer()
    assert not bench.reports
    bench.runtime.put_image('front', image, header=MessageHeader(NOW_NS + 50_000_000))
    bench.infer()
    assert len(bench.reports) == 1


def test_time_zero_of_a_chunk_is_the_oldest_images_stamp() -> None:
    bench = two_cameras()
    for _ in range(60):
        put(bench, 'front', bench.now_s)
        put(bench, 'wrist', bench.now_s - 0.04)
        bench.infer()
        bench.runtime.tick()
        bench.pass_time()
    assert bench.reports[-1].seam.skipped_actions == pytest.approx(0.04 / PERIOD_S)


def test_images_too_far_apart_make_no_observation() -> None:
    bench = two_cameras()
    for _ in range(20):
        put(bench, 'front', bench.now_s)
        put(bench, 'wrist', bench.now_s - 0.11)
        bench.infer()
        bench.runtime.tick()
        bench.pass_time()
    assert not bench.policy.observations
    assert bench.state == StateName.WAITING
    assert bench.reason.endswith('the images are further apart than max_camera_skew_s (0.1 s)')


def test_every_camera_must_have_sent_a_new_image_since_the_last_inference() -> None:
    bench = two_cameras()
    bench.inputs.discard('wrist')
    put(bench, 'wrist', bench.now_s)
    bench.run(0.4)
    assert len(bench.policy.observations) == 1


def test_images_from_before_a_reset_are_not_used_after_it() -> None:
    bench = Bench()
    bench.feed()
    bench.pass_time()
    bench.runtime.reset_episode()
    assert bench.runtime.begin_inference() is None
    bench.feed()
    assert bench.runtime.begin_inference() is not None


def test_a_camera_that_is_not_the_policys_is_refused() -> None:
    with pytest.raises(ObservationError, match="camera 'back'; allowed are front, wrist"):
        put(two_cameras(), 'back', 1.0)


def test_a_layout_that_cannot_be_assembled_is_refused_at_once() -> None:
    with pytest.raises(ParameterError, match=r'proprio\.layout'):
        PolicyRuntime(
            policy=FakePolicy(),
            cameras=('front',),
            proprio_layout=('mood',),
            gripper_joint_names=(),
            control=control(),
            pruning=PruningSettings(),
            clock=ManualClock(),
        )


@pytest.mark.parametrize(
    ('image', 'text'),
    [
        (RawImage('rgb8', 0, 0, 0, False, b''), '0 x 0 pixels'),
        (RawImage('rgb8', 2, 2, 6, False, b'123'), '3 bytes of data'),
        (RawImage('rgb8', 2, 2, 5, False, b'1234567890'), 'step 5'),
        (RawImage('32FC1', 2, 2, 8, False, b'1' * 16), "encoding '32FC1'"),
        (CompressedImage('jpeg', b'no jpeg'), "format 'jpeg' and 7 bytes"),
    ],
)
def test_a_bad_image_is_an_error_that_names_the_camera_and_latches_after_three(
    image: AnyImage, text: str
) -> None:
    bench = Bench()
    feed_with(bench, image)
    errors = [report.outcome.error for report in bench.reports]
    assert [error.startswith("camera 'front': ") for error in errors] == [True] * 3
    assert text in errors[0]
    assert bench.state == StateName.FAILED
    assert not bench.policy.observations


def test_one_bad_image_among_good_ones_stops_nothing() -> None:
    bench = Bench()
    for i in range(200):
        if i % 3:
            bench.step()
        else:
            feed_with(bench, CompressedImage('jpeg', b''), ticks=1)
    assert bench.state == StateName.RUNNING
    assert bench.runtime.statistics().failures > 3
    assert bench.runtime.statistics().halts == {}


def test_compressed_images_reach_the_policy_decoded() -> None:
    bench = Bench()
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    data = cv2.imencode('.png', red[..., ::-1])[1].tobytes()
    bench.runtime.put_image(
        'front', CompressedImage('png', data), header=MessageHeader.at(bench.now_s)
    )
    bench.infer()
    np.testing.assert_array_equal(bench.policy.observations[0].images['front'], red)


def test_a_fallback_that_raises_anything_is_a_failed_inference() -> None:
    policy = FakePolicy()

    def fallback(_: object) -> np.ndarray:
        raise KeyError('yuv422')

    runtime = PolicyRuntime(
        policy=policy,
        cameras=('front',),
        proprio_layout=(),
        gripper_joint_names=(),
        control=control(),
        pruning=PruningSettings(),
        clock=ManualClock(),
        initial_instruction='reach',
        image_fallback=fallback,
    )
    runtime.activate()
    runtime.put_image(
        'front', RawImage('yuv422', 2, 2, 4, False, b'12345678'), header=MessageHeader.at(1.0)
    )
    job = runtime.begin_inference()
    assert job is not None
    report = runtime.finish_inference(runtime.run_inference(job))
    assert "camera 'front': image has encoding 'yuv422'" in report.outcome.error


@pytest.mark.parametrize(
    ('planned', 'text'),
    [
        (lambda: ActionChunk(np.zeros((8, 2)), np.zeros((8, 3)), np.zeros(8), None), '(8, 2)'),
        (lambda: ActionChunk(np.zeros((7, 3)), np.zeros((8, 3)), np.zeros(8), None), '(7, 3)'),
        (lambda: ActionChunk(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), None), '(0, 3)'),
    ],
)
def test_a_chunk_of_another_shape_is_a_failed_inference(planned: object, text: str) -> None:
    bench = Bench(FakePolicy(lambda _: planned()))
    bench.run(0.1)
    assert text in bench.reports[0].outcome.error
    assert 'allowed are [T, 3], [T, 3] and [T]' in bench.reports[0].outcome.error


def test_a_move_that_no_robot_makes_is_a_failed_inference() -> None:
    bench = Bench(FakePolicy(lambda _: steady_chunk(1e300)))
    assert bench.run(0.5) == [None] * 25
    assert 'allowed is 100 m or rad' in bench.reports[0].outcome.error


def test_a_chunk_in_single_precision_is_played_like_any_other() -> None:
    good = steady_chunk(0.1)
    single = ActionChunk(
        good.translation_m.astype(np.float32),
        good.rotation_rad.astype(np.float32),
        good.gripper.astype(np.float32),
        good.record,
    )
    command = Bench(FakePolicy(lambda _: single)).run(0.5)[-1]
    assert command is not None
    assert command.linear_m_s.dtype == np.float64
    assert command.linear_m_s == pytest.approx([0.1, 0.0, 0.0], rel=1e-6)


def test_an_image_may_be_made_only_when_it_is_needed() -> None:
    bench, made = Bench(), []

    def render() -> np.ndarray:
        made.append(1)
        return np.full((4, 4, 3), 7, np.uint8)

    for _ in range(3):
        bench.runtime.put_image('front', render, header=MessageHeader.at(bench.now_s))
    assert not made
    bench.infer()
    assert len(made) == 1
    assert bench.policy.observations[0].images['front'].min() == 7


def test_a_reason_to_wait_is_not_told_with_another_reason() -> None:
    bench = two_cameras()
    bench.pass_time(1.0)
    put(bench, 'front', bench.now_s)
    put(bench, 'wrist', bench.now_s - 0.2)
    bench.infer()
    bench.runtime.tick()
    assert 'further apart' in bench.reason
    bench.runtime.set_instruction('')
    bench.infer()
    bench.runtime.tick()
    assert bench.reason == 'no instruction'


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('part', ['translation', 'rotation', 'gripper'])
def test_a_chunk_that_is_not_finite_is_refused_whole(value: float, part: str) -> None:
    good = steady_chunk()
    arrays = {
        'translation': good.translation_m.copy(),
        'rotation': good.rotation_rad.copy(),
        'gripper': good.gripper.copy(),
    }
    arrays[part].flat[-1] = value
    bad = ActionChunk(arrays['translation'], arrays['rotation'], arrays['gripper'], good.record)
    bench = Bench(FakePolicy(lambda _: bad))
    assert bench.run(0.5) == [None] * 25
    assert bench.reports[0].outcome.non_finite
    assert bench.reports[0].outcome.chunk is None


def test_a_policy_that_finds_its_own_numbers_not_finite_is_refused_too() -> None:
    def fail(_: Observation) -> ActionChunk:
        raise NonFiniteError('attention of layer 3 holds NaN')

    bench = Bench(FakePolicy(fail))
    bench.step()
    assert bench.reports[0].outcome.non_finite
    assert bench.reason == 'a chunk was refused: attention of layer 3 holds NaN'
    assert bench.reports[0].outcome.error == 'attention of layer 3 holds NaN'


def test_statistics_count_what_happened() -> None:
    bench = Bench(FakePolicy(lambda _: steady_chunk(0.1), cameras=TWO_CAMERAS), latency_s=0.06)
    bench.run(2.0)
    statistics = bench.runtime.statistics()
    assert statistics.ages_s == pytest.approx({'front': 0.02, 'wrist': 0.02})
    assert statistics.camera_skew_s == 0.0
    assert statistics.images_received == {'front': 100, 'wrist': 100}
    dropped = 99 - statistics.step
    assert statistics.images_dropped == {'front': dropped, 'wrist': dropped}
    assert statistics.inferences == statistics.accepted == len(bench.reports)
    assert statistics.latencies.p50_s == pytest.approx(0.06)
    assert statistics.latencies.max_s == pytest.approx(0.06)
    assert statistics.warm_up_latency_s == pytest.approx(0.06)
    assert statistics.last_observation_age_s == pytest.approx(0.06)
    assert statistics.chunk_duration_s == pytest.approx(0.4)
    assert statistics.seam_jump_m_s == pytest.approx(0.0, abs=1e-9)
    assert statistics.played_ticks == 97
    assert statistics.starved_ticks == 0
    assert statistics.episode == 1
    assert statistics.instruction == 'reach'


def test_the_warm_up_is_not_counted_in_the_latencies() -> None:
    bench = Bench(latency_s=1.5)
    bench.run(2.0)
    statistics = bench.runtime.statistics()
    assert statistics.warm_up_latency_s == pytest.approx(1.5)
    assert statistics.latencies.max_s is None
    assert bench.reports[0].accepted
    assert bench.reports[0].seam.skipped_actions == 0.0


def test_before_anything_came_statistics_are_empty() -> None:
    statistics = Bench(active=False).runtime.statistics()
    assert statistics.ages_s == {}
    assert statistics.inferences == 0
    assert statistics.skipped_actions is None
    assert statistics.seam_jump_m_s is None


def test_an_inactive_runtime_does_nothing() -> None:
    bench = Bench(active=False)
    assert bench.run(0.5) == [None] * 25
    assert not bench.policy.observations
    assert bench.runtime.halted


def test_one_inference_runs_at_a_time_in_an_epoch() -> None:
    bench = Bench()
    bench.feed()
    first = bench.runtime.begin_inference()
    assert first is not None
    bench.pass_time()
    bench.feed()
    assert bench.runtime.begin_inference() is None
    bench.runtime.finish_inference(bench.runtime.run_inference(first))
    bench.runtime.reset_episode()
    bench.feed()
    assert bench.runtime.begin_inference() is not None
    bench.runtime.reset_episode()
    bench.pass_time()
    bench.feed()
    assert bench.runtime.begin_inference() is not None


def test_an_inference_that_worked_ends_a_row_of_failures_even_if_a_halt_overtook_it() -> None:
    results = iter(['fail', 'fail', 'work'])

    def plan(_: Observation) -> ActionChunk:
        if next(results, 'fail') == 'fail':
            raise RuntimeError('fails')
        return steady_chunk()

    bench = Bench(FakePolicy(plan))
    for _ in range(3):
        bench.feed()
        job = bench.runtime.begin_inference()
        assert job is not None
        outcome = bench.runtime.run_inference(job)
        if outcome.chunk is not None:
            bench.pass_time(0.6)
            bench.runtime.tick()
            bench.feed()
            bench.runtime.tick()
        report = bench.runtime.finish_inference(outcome)
        bench.pass_time()
    assert report.why_not == 'the arm was halted in between'
    assert bench.runtime.statistics().consecutive_failures == 0


def test_joints_that_no_policy_asked_for_are_not_kept() -> None:
    bench = Bench(layout=('gripper_joints',), gripper_joints=('finger',))
    bench.runtime.put_joints(
        ['finger', 'stranger'], [0.1, 0.2], header=MessageHeader.at(bench.now_s)
    )
    assert set(bench.runtime._inputs.joints) == {'finger'}
