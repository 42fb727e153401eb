"""The method: which visual tokens a decoder may drop or leave as they were, step by step.

Pure tensor functions and the memory of an episode on torch alone; no model, no transformers, no
ROS.
"""

from safe_vla_ros.layer_plan import LayerPlan, plan_layers
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState, Reference, SaliencyReference, make_episode
from safe_vla_ros.pruning.flops import layer_macs, pass_macs
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection, StandIns, Tap
from safe_vla_ros.pruning.pruner import (
    BasicStep,
    Pruner,
    PrunerStep,
    SafeTrace,
    StepInput,
    StepReport,
)
from safe_vla_ros.pruning.registry import PRUNER_NAMES, make_pruner
from safe_vla_ros.pruning.saliency import attention_saliency
from safe_vla_ros.pruning.selection import kept_count, top_tokens
from safe_vla_ros.pruning.sequence import SequenceLayout

__all__ = [
    'PRUNER_NAMES',
    'BasicStep',
    'EpisodeState',
    'KeyValueContext',
    'LayerPlan',
    'PassPlan',
    'Pruner',
    'PrunerStep',
    'Reference',
    'SafeTrace',
    'SaliencyReference',
    'Selection',
    'SequenceLayout',
    'StandIns',
    'StepInput',
    'StepReport',
    'Tap',
    'attention_saliency',
    'kept_count',
    'layer_macs',
    'make_episode',
    'make_pruner',
    'pass_macs',
    'plan_layers',
    'top_tokens',
]
