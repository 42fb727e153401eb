"""Safetensors files read straight into tensors: no second copy, no memory map, no pickle."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch

from safe_vla_ros.bounded_files import opened, parse_json
from safe_vla_ros.errors import CheckpointError, shortened

_DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'I64': torch.int64,
    'I32': torch.int32,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}
_MAX_HEADER_BYTES = 16 * 2**20
"""A hundred thousand tensors."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies on disk.

    Attributes:
        path: The safetensors file.
        key: Name in that file.
        dtype: Element type on disk.
        shape: Shape on disk.
        offset: First byte in the file.
    """

    path: Path
    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size on disk in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def part(self, index: int, parts: int) -> StoredTensor:
        """Return the ``index``-th of ``parts`` equal blocks of rows (fused q, k, v)."""
        if not self.shape or self.shape[0] % parts:
            rows = self.shape[0] if self.shape else 'no'
            msg = f'{self.path}: {self.key} has {rows} rows, not a multiple of {parts}'
            raise CheckpointError(msg)
        shape = (self.shape[0] // parts, *self.shape[1:])
        size = math.prod(shape) * self.dtype.itemsize
        return replace(self, shape=shape, offset=self.offset + index * size)

    def reshaped(self, *shape: int) -> StoredTensor:
        """Return the same bytes seen with another shape of equal size."""
        if math.prod(shape) != math.prod(self.shape):
            msg = f'{self.path}: {self.key} has shape {list(self.shape)}, expected {list(shape)}'
            raise CheckpointError(msg)
        return replace(self, shape=shape)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Read the table of contents of a safetensors file; no weights are read.

    Args:
        path: The file.

    Returns:
        Its tensors by key.

    Raises:
        CheckpointError: The file is missing, a pickle, truncated, or not a safetensors file.
    """
    with opened(path, CheckpointError) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, 'little')
        if len(start) < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            _refuse_other_formats(path, start)
            msg = f'{path} is not a whole safetensors file: {size} bytes, header of {length}'
            raise CheckpointError(msg)
        text = file.read(length)
    try:
        entries = parse_json(text)
        tensors = {
            key: _stored_tensor(path, key, entry, 8 + length)
            for key, entry in entries.items()
            if key != '__metadata__'
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f'{path} has a broken safetensors header: {error}'
        raise CheckpointError(msg) from error
    end = max((tensor.offset + tensor.nbytes for tensor in tensors.values()), default=0)
    if end > size:
        msg = f'{path} is truncated: it has {size} bytes, its tensors need {end}'
        raise CheckpointError(msg)
    if sum(tensor.nbytes for tensor in tensors.values()) > size - 8 - length:
        msg = f'{path} has {size} bytes, and its tensors overlap in them'
        raise CheckpointError(msg)
    return tensors


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if start.startswith((b'PK', b'\x80')):
        msg = f'{path} is a pickle, not a safetensors file; pickled weights are not loaded'
        raise CheckpointError(msg)
    if start == b'version ':
        msg = f'{path} is a git-lfs pointer, not the weights: run `git lfs pull` in its directory'
        raise CheckpointError(msg)


def _stored_tensor(path: Path, key: str, entry: Mapping[str, Any], data: int) -> StoredTensor:
    dtype = _DTYPES.get(entry['dtype'])
    if dtype is None:
        msg = f'{path}: {key} has dtype {entry["dtype"]}; allowed are {", ".join(_DTYPES)}'
        raise CheckpointError(msg)
    begin, end = entry['data_offsets']
    shape = tuple(entry['shape'])
    if not all(type(number) is int and 0 <= number < 2**48 for number in (begin, end, *shape)):
        msg = f'{key} has shape {list(shape)} and offsets {begin}, {end}'
        raise ValueError(shortened(msg))
    tensor = StoredTensor(path, key, dtype, shape, data + begin)
    if tensor.nbytes != end - begin:
        msg = f'{path}: {key} has shape {list(shape)} but {end - begin} bytes'
        raise CheckpointError(msg)
    return tensor


def read_tensor(stored: StoredTensor, file: BinaryIO) -> torch.Tensor:
    """Read one tensor into freshly allocated memory on the CPU.

    Args:
        stored: Where it lies.
        file: Its file, open for unbuffered reading.

    Returns:
        The tensor, at its dtype on disk.

    Raises:
        CheckpointError: The file ends too early or cannot be read.
    """
    tensor = torch.empty(stored.shape, dtype=stored.dtype)
    content: Any = tensor.view(-1).view(torch.uint8).numpy() if tensor.numel() else b''
    buffer = memoryview(content)
    done = 0
    try:
        file.seek(stored.offset)
        while done < stored.nbytes:
            count = file.readinto(buffer[done:])  # type: ignore[attr-defined]
            if not count:
                msg = f'{stored.path} is truncated: it ends inside {stored.key}'
                raise CheckpointError(msg)
            done += count
    except OSError as error:
        msg = f'{stored.path}: {stored.key} cannot be read: {error.strerror}'
        raise CheckpointError(msg) from error
    return tensor


def load_tensor(stored: StoredTensor) -> torch.Tensor:
    """Read one tensor on its own, on the CPU at its dtype on disk; see ``read_tensor``."""
    with opened(stored.path, CheckpointError) as file:
        return read_tensor(stored, file)


class ReadBytes:
    """Counts the bytes read of a known total, and says which share that is."""

    def __init__(self, total: int, report: Callable[[float], None] | None) -> None:
        self._total = total
        self._report = report
        self._done = 0

    def add(self, count: int) -> None:
        """Count bytes that have been read."""
        self._done += count
        if self._report is not None:
            self._report(self._done / self._total)


def load_parameters(
    module: torch.nn.Module,
    sources: Mapping[str, StoredTensor],
    *,
    device: torch.device,
    dtype: torch.dtype | Callable[[str], torch.dtype],
    read: ReadBytes | None = None,
) -> None:
    """Fill a module built on the meta device, file by file in the order of the bytes.

    Args:
        module: Its parameters on the meta device are replaced by loaded, frozen ones.
        sources: Where each parameter comes from, by its name in the module.
        device: Where the parameters end up.
        dtype: What they are stored as, or what says so by name; at most one tensor is held twice.
        read: Counts what has been read.

    Raises:
        CheckpointError: A parameter has no source, a shape differs, or a file cannot be read.
    """
    parameters = {name: value for name, value in module.named_parameters() if value.is_meta}
    for name in parameters.keys() - sources.keys():
        msg = f'nothing in the checkpoint was found for {type(module).__name__}.{name}'
        raise CheckpointError(msg)
    for name, parameter in parameters.items():
        check_shape(sources[name], tuple(parameter.shape))
    files: dict[Path, list[str]] = {}
    for name in sorted(parameters, key=lambda name: sources[name].offset):
        files.setdefault(sources[name].path, []).append(name)
    for path in sorted(files):
        with opened(path, CheckpointError) as file:
            for name in files[path]:
                target = dtype if isinstance(dtype, torch.dtype) else dtype(name)
                tensor = read_tensor(sources[name], file).to(device=device, dtype=target)
                set_parameter(module, name, tensor)
                if read is not None:
                    read.add(sources[name].nbytes)


def check_shape(stored: StoredTensor, expected: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape than the model needs.

    Raises:
        CheckpointError: It names file, key and both shapes.
    """
    if stored.shape != expected:
        msg = (
            f'{stored.path}: {stored.key} has shape {list(stored.shape)}, expected {list(expected)}'
        )
        raise CheckpointError(msg)


def set_parameter(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replace one parameter, given by its dotted name, with a frozen one."""
    owner, _, leaf = name.rpartition('.')
    target = module.get_submodule(owner)
    setattr(target, leaf, torch.nn.Parameter(tensor, requires_grad=False))
