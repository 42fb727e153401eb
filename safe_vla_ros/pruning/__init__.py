"""The method: which visual tokens a decoder may drop, step by step.

Pure tensor functions and the memory of an episode on torch alone; no model, no transformers, no
ROS.
"""

from safe_vla_ros.layer_plan import LayerPlan, plan_layers
from safe_vla_ros.pruning.episode import EpisodeState, SaliencyReference, make_episode
from safe_vla_ros.pruning.flops import decoder_macs, layer_macs
from safe_vla_ros.pruning.pruner import Pruner, PrunerStep, SafeTrace, StepInput, StepReport
from safe_vla_ros.pruning.registry import PRUNER_NAMES, make_pruner
from safe_vla_ros.pruning.saliency import attention_saliency
from safe_vla_ros.pruning.selection import kept_count, top_tokens

__all__ = [
    'PRUNER_NAMES',
    'EpisodeState',
    'LayerPlan',
    'Pruner',
    'PrunerStep',
    'SafeTrace',
    'SaliencyReference',
    'StepInput',
    'StepReport',
    'attention_saliency',
    'decoder_macs',
    'kept_count',
    'layer_macs',
    'make_episode',
    'make_pruner',
    'plan_layers',
    'top_tokens',
]
