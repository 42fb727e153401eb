"""What a robot needs around a policy: inputs, ages, playback, limits, halting, parameters.

numpy and OpenCV only, no torch, no ROS; every clock is injected.
"""

from safe_vla_ros.runtime.clocks import ManualClock, SteadyClock
from safe_vla_ros.runtime.controller import Command
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.inference import InferenceJob, InferenceOutcome, InferenceReport
from safe_vla_ros.runtime.policy_runtime import PolicyRuntime
from safe_vla_ros.runtime.settings import ControlSettings, MotionLimits, Workspace
from safe_vla_ros.runtime.states import RuntimeState, StateName
from safe_vla_ros.runtime.statistics import RuntimeStatistics
from safe_vla_ros.runtime.worker import InferenceWorker

__all__ = [
    'Command',
    'ControlSettings',
    'InferenceJob',
    'InferenceOutcome',
    'InferenceReport',
    'InferenceWorker',
    'ManualClock',
    'MotionLimits',
    'PolicyRuntime',
    'Pose',
    'RuntimeState',
    'RuntimeStatistics',
    'StateName',
    'SteadyClock',
    'Workspace',
]
