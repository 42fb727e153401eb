"""Episodes begin with a scene that was loaded or reset while the robot's time went on."""

import threading
from types import SimpleNamespace

import pytest

from safe_vla_ros.sim import episode_starter
from safe_vla_ros.sim.episode_starter import EpisodeStarter, StartError
from safe_vla_ros.sim.robot_loop import LoopSettings, RobotLoop


class FakeArm:
    """A scene with two tasks, named `<scene>/<task>`; it is wrong to reset it while it steps."""

    ee_position = ee_quaternion_xyzw = joint_positions = ()
    joint_names = ()
    success = False

    def __init__(self, name, *, seed, init_state):
        self.ask(name)
        self.scene, self.resets, self.steps = name.split('/')[0], [(seed, init_state)], 0
        self.closed, self.trouble = False, ''

    def has_task(self, name):
        return name.split('/')[0] == self.scene

    def ask(self, name):
        self.task = SimpleNamespace(name=name, suite='any', max_duration_s=10.0)
        self.instruction = name

    def reset(self, seed, *, init_state):
        before = self.steps
        threading.Event().wait(0.05)
        if self.steps != before:
            self.trouble = 'it stepped while it was reset'
        self.resets.append((seed, init_state))

    def step(self, now_s):
        assert not self.closed
        self.steps += 1

    def close(self):
        self.closed = True


class Cameras:
    error = None

    def __init__(self):
        self.prepared = []

    def prepare(self, arm):
        self.prepared.append(arm)
        return self.error is None


class Listener:
    def __init__(self):
        self.episodes = []

    def on_state(self, state):
        pass

    def on_capture(self, arm, stamp_s):
        pass

    def on_episode(self, event):
        self.episodes.append((event.kind, event.task))


@pytest.fixture
def parts():
    listener, cameras = Listener(), Cameras()
    loop = RobotLoop(listener, LoopSettings())
    loop.start()
    yield EpisodeStarter(loop, cameras, make_arm=FakeArm), loop, cameras, listener
    assert loop.stop()
    assert loop.error is None


def test_another_bowl_of_the_scene_resets_the_arm_outside_the_loop(parts):
    starter, _loop, cameras, listener = parts
    starter.start('a/1', seed=5)
    event = starter.start('a/2', seed=6, init_state=4)
    (arm,) = cameras.prepared
    assert arm.resets == [(5, None), (6, 4)]
    assert arm.trouble == ''
    assert (event.task, event.seed, event.init_state, event.episode) == ('a/2', 6, 4, 2)
    assert listener.episodes == [('started', 'a/1'), ('aborted', 'a/1'), ('started', 'a/2')]


def test_the_arm_stands_in_the_old_scene_while_another_one_loads(parts):
    starter, _loop, cameras, listener = parts
    starter.start('a/1', seed=5)
    (old,) = cameras.prepared
    stepped = []

    def load(name, *, seed, init_state):
        before = old.steps
        while old.steps == before:
            threading.Event().wait(0.001)
        stepped.append(old.steps > before)
        return FakeArm(name, seed=seed, init_state=init_state)

    starter._make_arm = load
    starter.start('b/1', seed=6)
    assert stepped == [True]
    assert listener.episodes == [('started', 'a/1'), ('aborted', 'a/1'), ('started', 'b/1')]
    assert cameras.prepared[1].task.name == 'b/1'
    assert old.closed


def test_a_scene_can_be_shown_without_an_episode(parts):
    starter, loop, _cameras, listener = parts
    starter.show('a/1', seed=5)
    assert loop.episode is None
    assert listener.episodes == []


def test_a_start_waits_for_one_before_it(parts):
    starter, _loop, cameras, listener = parts
    loading, go_on = threading.Event(), threading.Event()

    def load(name, *, seed, init_state):
        loading.set()
        assert go_on.wait(10.0)
        return FakeArm(name, seed=seed, init_state=init_state)

    starter._make_arm = load
    first = threading.Thread(target=lambda: starter.show('a/1', seed=5))
    first.start()
    assert loading.wait(10.0)
    assert starter.busy
    second = threading.Thread(target=lambda: starter.start('a/2', seed=6))
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join(10.0)
    assert listener.episodes == [('started', 'a/2')]
    assert len(cameras.prepared) == 1


def test_a_start_gives_up_on_a_scene_that_never_loads(parts, monkeypatch):
    starter, *_ = parts
    monkeypatch.setattr(episode_starter, 'PATIENCE_S', 0.01)
    with starter._lock, pytest.raises(StartError, match='another scene has been loading'):
        starter.start('a/1', seed=5)


def test_cameras_that_cannot_be_rendered_are_told(parts):
    starter, _, cameras, _ = parts
    cameras.error = OSError('no EGL')
    with pytest.raises(RuntimeError, match='cannot be rendered: no EGL'):
        starter.start('a/1', seed=5)
    assert not starter.busy
