"""A checkpoint directory in OpenVLA's on-disk format, checked before weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint_tensors import StoredTensor, read_header
from safe_vla_ros.policies.pt_file import check_archive, check_tensor, load_pickle
from safe_vla_ros.policies.spec import read_json

SINGLE_FILE = 'model.safetensors'
INDEX_FILE = 'model.safetensors.index.json'
STATISTICS_FILE = 'dataset_statistics.json'


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint directory; no weights are in memory.

    Attributes:
        path: The directory.
        config: Content of ``config.json``.
        tensors: Every stored tensor by its key.
        weights_file: The file that lists the keys, for messages.
        stored_name: From a key to what the file calls it, for messages.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    weights_file: Path
    stored_name: Callable[[str], str] = str

    def tensor(self, key: str) -> StoredTensor:
        """Return where the tensor ``key`` lies.

        Raises:
            CheckpointError: There is no such key.
        """
        try:
            return self.tensors[key]
        except KeyError:
            msg = f'{self.weights_file} has no tensor {self.stored_name(key)}'
            raise CheckpointError(msg) from None

    def setting(self, key: str) -> Any:
        """Return a value of ``config.json``.

        Raises:
            CheckpointError: There is no such key.
        """
        try:
            return self.config[key]
        except KeyError:
            msg = f'{self.path / "config.json"} has no key {key!r}'
            raise CheckpointError(msg) from None

    def length(self, key: str, axis: int) -> int:
        """Return the length of a tensor along an axis, which it must have and which is not empty.

        Raises:
            CheckpointError: There is no such key, or it has another shape.
        """
        shape = self.tensor(key).shape
        if len(shape) <= axis or not shape[axis]:
            stored = self.tensors[key]
            msg = f'{stored.path}: {stored.key} has shape {list(shape)}; axis {axis} is empty'
            raise CheckpointError(msg)
        return shape[axis]

    def count_blocks(self, prefix: str) -> int:
        """Return how many numbered blocks (``prefix.0.``, ``prefix.1.`` ...) there are."""
        start = f'{prefix}.'
        numbers = {
            key[len(start) :].split('.', 1)[0] for key in self.tensors if key.startswith(start)
        }
        return sum(number.isdigit() for number in numbers)

    def statistics(self) -> Mapping[str, Any]:
        """Return the statistics by dataset; ``dataset_statistics.json`` replaces ``norm_stats``.

        Raises:
            CheckpointError: There are none, or they are not a mapping of mappings.
        """
        path = self.path / STATISTICS_FILE
        if path.exists():
            content, where = read_json(path), str(path)
        else:
            content = self.config.get('norm_stats') or {}
            where = f'{self.path / "config.json"}: norm_stats'
        if not content:
            msg = (
                f'{self.path} has no action statistics: {STATISTICS_FILE} or norm_stats in '
                'config.json is needed'
            )
            raise CheckpointError(msg)
        if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
            msg = f'{where} must map dataset names to statistics'
            raise CheckpointError(msg)
        return content


def open_checkpoint(path: Path) -> Checkpoint:
    """Read ``config.json`` and the headers of the weight files.

    Args:
        path: The checkpoint directory.

    Returns:
        The opened checkpoint.

    Raises:
        CheckpointError: A file is missing, broken or of a kind that is not loaded.
    """
    config = read_json(path / 'config.json')
    index_path = path / INDEX_FILE
    if index_path.exists():
        return Checkpoint(path, config, _read_index(index_path), index_path)
    single = path / SINGLE_FILE
    if not single.exists():
        msg = f'{path} has neither {SINGLE_FILE} nor {INDEX_FILE}'
        if any(path.glob('pytorch_model*.bin')):
            msg += '; pickled weights (pytorch_model.bin) are not loaded, convert to safetensors'
        elif any(path.glob('model*.safetensors')):
            msg += '; there are shards, but the index that lists them is missing'
        raise CheckpointError(msg)
    return Checkpoint(path, config, read_header(single), single)


def _read_index(index_path: Path) -> dict[str, StoredTensor]:
    weight_map = read_json(index_path).get('weight_map')
    if not isinstance(weight_map, dict) or not weight_map:
        msg = f'{index_path} has no weight_map from tensor names to files'
        raise CheckpointError(msg)
    headers: dict[str, dict[str, StoredTensor]] = {}
    tensors = {}
    for key, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name:
            msg = f'{index_path}: {key} points to {name!r}; allowed is a file name in the directory'
            raise CheckpointError(msg)
        if name not in headers:
            try:
                headers[name] = read_header(index_path.parent / name)
            except CheckpointError as error:
                msg = f'{error}; {INDEX_FILE} names it'
                raise CheckpointError(msg) from error
        if key not in headers[name]:
            msg = f'{index_path.parent / name} has no tensor {key}, though {INDEX_FILE} says so'
            raise CheckpointError(msg)
        tensors[key] = headers[name][key]
    return tensors


def find_component(path: Path, name: str) -> Path | None:
    """Return the file ``<name>--<step>_checkpoint.pt`` of a directory, or None.

    Raises:
        CheckpointError: There are several, so the right one is unknown.
    """
    found = sorted(path.glob(f'{name}--*checkpoint.pt'))
    if len(found) > 1:
        names = ', '.join(file.name for file in found)
        msg = f'{path} has several {name} files ({names}); keep the one that belongs to the weights'
        raise CheckpointError(msg)
    return found[0] if found else None


def load_component(path: Path, *, shapes_only: bool = False) -> dict[str, torch.Tensor]:
    """Load a ``.pt`` file of tensors, without running any code that it may contain.

    Args:
        path: The file.
        shapes_only: Return tensors on the meta device instead.

    Returns:
        Tensors by key, a ``module.`` prefix (DistributedDataParallel) removed.

    Raises:
        CheckpointError: Not a file of tensors, truncated, a pickle that holds anything else, or
            tensors that are larger than the file.
    """
    size = check_archive(path)
    content = load_pickle(path, device='meta' if shapes_only else 'cpu')
    if not isinstance(content, dict) or not content:
        msg = f'{path} must hold tensors by name, got {type(content).__name__}'
        raise CheckpointError(msg)
    for key, value in content.items():
        check_tensor(path, key, value)
    if sum(value.numel() * value.element_size() for value in content.values()) > size:
        msg = f'{path} has {size} bytes, which its tensors exceed'
        raise CheckpointError(msg)
    # A copy, because the file may change or vanish under its map.
    return {key.removeprefix('module.'): value.clone() for key, value in content.items()}


def fill_module(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Put the tensors of a component file into a module built on the meta device.

    Args:
        module: Receives every tensor as a frozen parameter.
        tensors: By the module's parameter names; already at the right dtype and device.
        path: The file, for messages.

    Raises:
        CheckpointError: A tensor is missing, unknown, or has another shape.
    """
    expected = dict(module.named_parameters())
    for name in sorted(expected.keys() ^ tensors.keys()):
        what = 'has no tensor' if name in expected else 'has an unknown tensor'
        msg = f'{path} {what} {name}'
        raise CheckpointError(msg)
    for name, parameter in expected.items():
        if tensors[name].shape != parameter.shape:
            got, wanted = list(tensors[name].shape), list(parameter.shape)
            msg = f'{path}: {name} has shape {got}, expected {wanted}'
            raise CheckpointError(msg)
    module.load_state_dict(dict(tensors), assign=True, strict=True)
    module.requires_grad_(requires_grad=False)
