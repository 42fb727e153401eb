"""VLA models that turn an observation into an action chunk: loading, preparing, inferring.

Torch and transformers may be used here; ROS, robots and clocks may not.
"""

from safe_vla_ros.policies.registry import load_policy, read_spec
from safe_vla_ros.policies.spec import find_policy

__all__ = ['find_policy', 'load_policy', 'read_spec']
