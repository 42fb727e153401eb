"""Files of ``torch.save``: checked before they are opened, and listed without reading a weight."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from safe_vla_ros.bounded_files import opened
from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint_tensors import StoredTensor

_LARGEST_PICKLE = 2**20
"""Bytes of the table of tensors; each takes about 120."""
_LOCAL_HEADER = 30
"""Bytes of a zip entry's own header, before its name."""


def check_archive(path: Path) -> int:
    """Return the size of a ``.pt`` file whose parts are not larger than it says, bytes.

    Raises:
        CheckpointError: It is truncated, compressed, not a zip file, or declares more than it has.
    """
    with _archive(path) as (file, archive):
        size = os.fstat(file.fileno()).st_size
        entries = archive.infolist()
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        msg = f'{path} is refused: {packed[0]} is compressed, which torch.save never does'
        raise CheckpointError(msg)
    names = [entry for entry in entries if entry.filename.endswith('.pkl')]
    if sum(entry.file_size for entry in entries) > size or any(
        entry.file_size > _LARGEST_PICKLE for entry in names
    ):
        msg = f'{path} is refused: it has {size} bytes and declares more, or a table of too many'
        raise CheckpointError(msg)
    return size


def load_pickle(path: Path, *, device: str | None = 'cpu') -> Any:
    """Return the content of a checked file without running any code that it may contain.

    Args:
        path: A file that ``check_archive`` accepts.
        device: Where its tensors are put; None leaves them where the file says.

    Raises:
        CheckpointError: It holds anything but plain containers of tensors, or is broken.
    """
    try:
        # Mapped, a storage takes no memory that its file does not have.
        return torch.load(path, map_location=device, weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if str(error) else 'broken pickle'
        msg = f'{path} is refused: it is not a plain file of tensors ({reason})'
        raise CheckpointError(msg) from error
    except Exception as error:  # a broken pickle can raise anything
        msg = f'{path} is truncated or not a file of tensors: {error}'
        raise CheckpointError(msg) from error


def check_tensor(path: Path, key: object, value: object) -> torch.Tensor:
    """Return a value that is a named dense tensor.

    Raises:
        CheckpointError: It is something else; names the file, the key and what it is.
    """
    if not isinstance(key, str) or not isinstance(value, torch.Tensor):
        msg = f'{path}: {key!r} is {type(value).__name__}; allowed are tensors only'
        raise CheckpointError(msg)
    if value.layout is not torch.strided or value.is_quantized:
        msg = f'{path}: {key!r} is {value.layout}; allowed are dense tensors only'
        raise CheckpointError(msg)
    return value


def read_groups(path: Path) -> dict[str, dict[str, StoredTensor]]:
    """List the tensors of a training checkpoint ``{'model': {group: {key: tensor}}}``.

    No weight is read and no memory is taken for one: only the table in the file is.

    Args:
        path: The ``.pt`` file.

    Returns:
        By group and by the key in it, where the tensor lies in the file.

    Raises:
        CheckpointError: Not such a file, one with objects in it, or one that is inconsistent.
    """
    # Takes a second to import, and only this format needs it.
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415

    size = check_archive(path)
    records = _records(path)
    with FakeTensorMode():
        content = load_pickle(path, device=None)
        model = content.get('model') if isinstance(content, Mapping) else None
        if not isinstance(model, Mapping) or not model:
            msg = f"{path} has no groups of tensors under the key 'model'"
            raise CheckpointError(msg)
        groups: dict[str, dict[str, StoredTensor]] = {}
        for group, tensors in model.items():
            if not isinstance(group, str) or not isinstance(tensors, Mapping):
                what = type(tensors).__name__
                msg = f'{path}: model.{group} is {what}; allowed are tensors by name'
                raise CheckpointError(msg)
            groups[group] = {
                key: _stored(path, group, key, value, records) for key, value in tensors.items()
            }
    total = sum(stored.nbytes for tensors in groups.values() for stored in tensors.values())
    if total > size:
        msg = f'{path} has {size} bytes, which its tensors exceed'
        raise CheckpointError(msg)
    return groups


def _records(path: Path) -> dict[int, int]:
    """Return the size of every record by the place of its first byte."""
    records = {}
    with _archive(path) as (file, archive):
        for entry in archive.infolist():
            if entry.filename.endswith('/byteorder'):
                with archive.open(entry) as part:
                    order = part.read(16)
                if order != b'little':
                    msg = f'{path} is refused: its numbers are not little-endian'
                    raise CheckpointError(msg)
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER)
            name, extra = (int.from_bytes(header[at : at + 2], 'little') for at in (26, 28))
            records[entry.header_offset + _LOCAL_HEADER + name + extra] = entry.file_size
    return records


@contextmanager
def _archive(path: Path) -> Iterator[tuple[BinaryIO, zipfile.ZipFile]]:
    with opened(path, CheckpointError) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield file, archive
        except CheckpointError:
            raise
        except Exception as error:  # zipfile raises what a broken directory makes of it
            msg = f'{path} is refused: it is truncated or not a file of torch.save ({error})'
            raise CheckpointError(msg) from error


def _stored(
    path: Path, group: str, key: object, value: object, records: Mapping[int, int]
) -> StoredTensor:
    tensor = check_tensor(path, key, value)
    name = f'{group}.{key}'
    if not tensor.is_contiguous():
        msg = f'{path}: {name} is a view with gaps; allowed are contiguous tensors only'
        raise CheckpointError(msg)
    record = getattr(tensor.untyped_storage(), '_checkpoint_offset', None) or 0
    offset = int(tensor.storage_offset()) * tensor.element_size()
    if offset + tensor.nbytes > records.get(record, 0):
        msg = f'{path}: {name} does not lie within one record of the file'
        raise CheckpointError(msg)
    return StoredTensor(path, name, tensor.dtype, tuple(tensor.shape), record + offset)
