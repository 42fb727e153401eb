"""Images of every kind reach the policy, or are refused in a sentence."""

from __future__ import annotations

import array

import numpy as np
import pytest
from node_bench import moves, values_of
from sensor_msgs.msg import CompressedImage

RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = 200


def raw(encoding, data, step):
    def rewrite(message):
        message.height, message.width = RED.shape[:2]
        message.encoding, message.step = encoding, step
        message.data = array.array('B', data)
        return message

    return rewrite


def padded(pixels):
    return np.pad(pixels.reshape(4, -1), ((0, 0), (0, 5))).tobytes()


ALPHA = np.full((4, 6, 1), 255, np.uint8)
GOOD = {
    'bgr8': raw('bgr8', RED[..., ::-1].tobytes(), 18),
    'rgba8': raw('rgba8', np.concatenate([RED, ALPHA], 2).tobytes(), 24),
    'rows with padding': raw('rgb8', padded(RED), 23),
}


@pytest.mark.parametrize('kind', GOOD)
def test_encoding_arrives_as_rgb(bench, robot, kind):
    robot.change_image['front'] = GOOD[kind]
    robot.start_moving()
    seen = bench.policy.observations[-1].images['front']
    assert (seen == RED).all()
    assert seen.shape == RED.shape


def resized(height, width):
    def rewrite(message):
        message.height, message.width = height, width
        return message

    return rewrite


BAD = {
    'size': (resized(25, 32), 'bytes of data'),
    'zero size': (resized(0, 0), 'both must be at least 1'),
    'encoding': (raw('16UC1', RED.tobytes(), 18), "encoding '16UC1'"),
}


@pytest.mark.parametrize('kind', BAD)
def test_bad_image_fails_the_inference_and_latches_failed(robot, kind):
    change, reason = BAD[kind]
    robot.start_moving()
    before = len(robot.heard['twist'])
    robot.change_image['front'] = change
    message = robot.wait_state('failed', reason, after=0).message
    assert "camera 'front': image" in message
    robot.expect_stop(before)
    robot.change_image['front'] = lambda message: message
    robot.say('another task')
    robot.expect_silence()
    assert robot.reset().success
    robot.next('twist', moves)


def test_a_failed_inference_has_its_images_stamp_to_the_nanosecond(robot):
    robot.start_moving()
    stamps = set()

    def spoil(message):
        message.encoding = '16UC1'
        stamps.add((message.header.stamp.sec, message.header.stamp.nanosec))
        return message

    robot.change_image = dict.fromkeys(robot.change_image, spoil)
    message = robot.next(
        'inference', lambda m: "encoding '16UC1'" in values_of(m.status[0])['error']
    )
    assert (message.header.stamp.sec, message.header.stamp.nanosec) in stamps


def test_compressed_images_come_on_their_own_topic(start_node):
    import cv2

    with start_node(image_transport='compressed', instruction='go') as bench:
        robot = bench.robot
        namespace = robot.name.rpartition('/')[0]
        cameras = {
            camera: robot.node.create_publisher(
                CompressedImage, f'{namespace}/{camera}/image_raw/compressed', 1
            )
            for camera in ('front', 'wrist')
        }
        assert robot.transition('configure')
        assert robot.transition('activate')
        robot.wait_matched(*cameras.values(), robot.pose, robot.joints)
        jpeg = cv2.imencode('.jpg', np.full((16, 16, 3), (0, 0, 200), np.uint8))[1]

        def compress(message):
            small = CompressedImage(header=message.header, format='jpeg')
            small.data = array.array('B', jpeg.tobytes())
            cameras[message.header.frame_id.partition('_')[0]].publish(small)
            return message

        robot.change_image = dict.fromkeys(robot.change_image, compress)
        robot.start_feeding()
        robot.next('twist', moves)
        red = bench.policy.observations[-1].images['wrist'].mean(axis=(0, 1))
        assert red[0] > 150
        assert red[2] < 50


def test_missing_camera_is_waited_for_by_name(robot):
    robot.silent.add('wrist')
    assert robot.transition('configure')
    assert robot.transition('activate')
    robot.wait_matched(robot.images['front'])
    robot.start_feeding()
    robot.say('go')
    robot.wait_state('waiting', "no image of camera 'wrist' yet", after=0)
    robot.expect_silence()
    assert not robot.heard['twist']
