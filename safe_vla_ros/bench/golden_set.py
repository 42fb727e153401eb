"""A golden set on disk, and this project's own numbers for it."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies.normalization import normalize_proprio
from safe_vla_ros.policies.openvla_config import OpenVlaOptions
from safe_vla_ros.policies.openvla_oft import (
    load_model,
    open_directory,
    read_directory_normalizers,
)
from safe_vla_ros.policies.openvla_oft_model import OftModel
from safe_vla_ros.policies.openvla_policy import Normalizers, Prediction
from safe_vla_ros.policies.prompt import complete_prompt
from safe_vla_ros.pruning import EpisodeState
from safe_vla_ros.types import PruningSettings

Arrays = dict[str, NDArray[Any]]
BUGCASE = 'bugcase'


class GoldenSetError(SafeVlaError):
    """A directory is not a golden set, or a part of it is missing."""


@dataclass(frozen=True)
class GoldenSet:
    """One set: settings, inputs and where everything lies.

    Attributes:
        path: The set's directory.
        settings: ``settings`` of its meta.json.
        meta: All of its meta.json.
        inputs: Content of inputs.npz.
    """

    path: Path
    settings: Mapping[str, Any]
    meta: Mapping[str, Any]
    inputs: Arrays

    @property
    def steps(self) -> int:
        """Number of recorded steps."""
        return len(self.inputs['pixel_values'])

    def expected(self, name: str) -> Arrays:
        """Return the arrays of one ``.npz`` file; empty where the set has none."""
        path = self.path / name
        return read_arrays(path) if path.exists() else {}

    def pruning(self) -> PruningSettings:
        """Return the set's pruning settings: the published formula, r as given."""
        settings = self.settings
        return PruningSettings(
            method='safe',
            keep_ratio=1.0 - settings['r'],
            layer=settings['K'],
            fusion_weight=settings['lambda'],
            refresh_threshold=settings['gamma'],
            fusion='reference',
            query_rows='action',
            forecast_layers=self.layers(),
        )

    def layers(self) -> tuple[int, ...]:
        """Return ``avg_layers``; as text, the published code reads ``a-b`` as the two layers."""
        layers = self.settings['avg_layers']
        if isinstance(layers, str):
            layers = layers.replace('-', ',').split(',')
        return tuple(int(layer) for layer in layers)

    def query_rows(self) -> slice:
        """Return the set's ``attn_slice`` as a slice of the sequence."""
        text = str(self.settings['attn_slice'])
        parts = [int(part) if part else None for part in text.split(':')]
        if len(parts) == 1 and parts[0] is not None:
            return slice(parts[0], parts[0] + 1 or None)
        return slice(*parts)

    def options(self, action_slice: str) -> OpenVlaOptions:
        """Return what the checkpoint's files leave open."""
        vision = self.meta.get('vision', {})
        heads = [vision[tower].get('heads') for tower in ('dino', 'siglip') if tower in vision]
        return OpenVlaOptions(
            chunk_size=self.settings['num_actions_chunk'],
            normalization=self.settings['normalization'],
            action_slice=action_slice,
            vision_heads=tuple(heads) if heads and all(heads) else None,
        )


def read_meta(path: Path) -> dict[str, Any]:
    """Read a set's meta.json.

    Raises:
        GoldenSetError: It is missing, or not an object.
    """
    try:
        meta = json.loads((path / 'meta.json').read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        msg = f'{path} is not a golden set: meta.json is needed ({error})'
        raise GoldenSetError(msg) from error
    if not isinstance(meta, dict):
        msg = f'{path / "meta.json"} must hold an object'
        raise GoldenSetError(msg)
    return meta


def read_set(path: Path) -> GoldenSet:
    """Read a set's settings and inputs.

    Raises:
        GoldenSetError: A file or a setting is missing or unreadable.
    """
    meta = read_meta(path)
    settings = meta.get('settings')
    if not isinstance(settings, dict):
        msg = f'{path} is not a golden set: meta.json with "settings" is needed'
        raise GoldenSetError(msg)
    needed = 'K r lambda gamma attn_slice avg_layers unnorm_key num_actions_chunk normalization'
    missing = [key for key in needed.split() if key not in settings]
    inputs = read_arrays(path / 'inputs.npz')
    missing += [key for key in ('pixel_values', 'input_ids') if key not in inputs]
    if missing:
        msg = f'{path} lacks {", ".join(missing)} in meta.json or inputs.npz'
        raise GoldenSetError(msg)
    return GoldenSet(path, settings, meta, inputs)


def read_arrays(path: Path) -> Arrays:
    """Read every array of an ``.npz`` file.

    Raises:
        GoldenSetError: It is missing or unreadable.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError) as error:
        msg = f'{path} cannot be read: {error}'
        raise GoldenSetError(msg) from error


@contextmanager
def unpacked_parts(
    path: Path, parts: Sequence[str] = ('checkpoint', 'tokenizer')
) -> Iterator[Path]:
    """Provide folders of a set as plain directories, with their own folders and all.

    Args:
        path: The set's directory.
        parts: Names of the folders.

    Yields:
        A directory with the folders, for as long as the context lasts.

    Raises:
        GoldenSetError: One is missing, or a compressed file is broken.
    """
    with TemporaryDirectory(prefix='golden_') as name:
        for part in parts:
            if not (path / part).is_dir():
                msg = f'{path / part} is missing'
                raise GoldenSetError(msg)
            for file in sorted((path / part).rglob('*')):
                if file.is_file():
                    target = Path(name) / file.relative_to(path).parent
                    target.mkdir(parents=True, exist_ok=True)
                    _copy_plain(file, target)
        yield Path(name)


@contextmanager
def unpacked(golden: GoldenSet, variant: str = '') -> Iterator[Path]:
    """Provide the set's checkpoint as a plain directory, for as long as the context lasts.

    Args:
        golden: The set.
        variant: A subdirectory whose ``.pt`` files replace those of the checkpoint.

    Raises:
        GoldenSetError: There is no checkpoint, or a compressed file is broken.
    """
    with TemporaryDirectory(prefix='golden_') as name:
        target = Path(name)
        unpack_checkpoint(golden.path, target)
        if variant:
            for file in (golden.path / variant).glob('*.pt*'):
                _copy_plain(file, target)
        yield target


def unpack_checkpoint(path: Path, target: Path) -> None:
    """Copy a set's checkpoint into a directory, decompressing ``.gz`` files.

    Args:
        path: The set's directory.
        target: An existing directory.

    Raises:
        GoldenSetError: There is no checkpoint, or a compressed file is broken.
    """
    source = path / 'checkpoint'
    if not source.is_dir():
        msg = f'{source} is missing'
        raise GoldenSetError(msg)
    for file in sorted(entry for entry in source.iterdir() if entry.is_file()):
        _copy_plain(file, target)


def _copy_plain(file: Path, target: Path) -> None:
    if file.suffix != '.gz':
        shutil.copyfile(file, target / file.name)
        return
    try:
        with gzip.open(file) as packed, (target / file.stem).open('wb') as plain:
            shutil.copyfileobj(packed, plain)
    except (OSError, EOFError, zlib.error) as error:
        msg = f'{file} cannot be decompressed: {error}'
        raise GoldenSetError(msg) from error


def changed_files(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Return the files that are missing or differ from their sha256, hexadecimal by name."""
    changed = []
    for name, digest in digests.items():
        file = folder / name
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            changed.append(name)
    return changed


@contextmanager
def layer_outputs(decoder: Any) -> Iterator[list[torch.Tensor]]:
    """Collect the output of every decoder layer, [1, S, D], in the order in which they run."""
    outputs: list[torch.Tensor] = []

    def note(module: object, given: object, output: Any) -> None:  # noqa: ARG001
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(note) for layer in decoder.layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class GoldenRunner:
    """Runs a set's inputs through its checkpoint."""

    def __init__(self, golden: GoldenSet, checkpoint: Path, *, action_slice: str) -> None:
        """Load the checkpoint in float32 on the CPU.

        Args:
            golden: The set.
            checkpoint: Its plain checkpoint directory.
            action_slice: ``shifted`` as in the published code, or ``oft``.
        """
        self._golden = golden
        directory = open_directory(checkpoint, golden.options(action_slice))
        self.normalizers: Normalizers = read_directory_normalizers(
            directory, golden.settings['unnorm_key']
        )
        self.model: OftModel = load_model(directory, device='cpu', dtype='float32')
        self.prompt_ids = complete_prompt([int(i) for i in golden.inputs['input_ids'][0]])

    def pixels(self, step: int) -> torch.Tensor:
        """Return pixel values [C, 3 * towers, S, S] of a step."""
        values: torch.Tensor = torch.from_numpy(self._golden.inputs['pixel_values'][step])
        channels = 3 * len(self.model.network.vision.sizes)
        return values.reshape(-1, channels, *values.shape[-2:])

    def prepared_pixels(self, step: int) -> NDArray[Any]:
        """Return this project's pixel values of the set's images, shaped as in the set."""
        images = torch.from_numpy(self._golden.inputs['images_u8'][step])
        return self.model.network.vision.normalize(images).flatten(0, 1).numpy()

    def proprio(self, step: int) -> torch.Tensor | None:
        """Return the set's normalised proprioception of a step."""
        values = self._golden.inputs.get('proprio_norm')
        return None if values is None else torch.from_numpy(values[step])

    def normalized_proprio(self, step: int) -> NDArray[Any] | None:
        """Return this project's normalisation of the set's raw proprioception."""
        if self.normalizers.proprio is None or 'proprio_raw' not in self._golden.inputs:
            return None
        return normalize_proprio(self._golden.inputs['proprio_raw'][step], self.normalizers.proprio)

    def predict(self, step: int, episode: EpisodeState, pruning: PruningSettings) -> Prediction:
        """Run one step."""
        return self.model.predict(
            self.pixels(step),
            self.prompt_ids,
            self.proprio(step),
            episode=episode,
            pruning=pruning,
            stamp_s=float(step),
            query_rows=self._golden.query_rows(),
        )
