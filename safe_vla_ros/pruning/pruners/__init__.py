"""One file per pruning method, each entered in ``pruning.registry``.

A pruner plans rows and layers and computes on tensors; state is in the caller's episode only.
"""
