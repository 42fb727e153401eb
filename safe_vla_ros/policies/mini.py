"""The bundled policy: loads ``config.json``, ``model.safetensors`` and ``tokenizer.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from safe_vla_ros.bounded_files import opened
from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies.actions import to_chunk
from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.checkpoint_tensors import read_header, read_tensor
from safe_vla_ros.policies.decoder import run_decoder
from safe_vla_ros.policies.device import choose_device, choose_dtype
from safe_vla_ros.policies.image_preparation import ImagePreparation
from safe_vla_ros.policies.mini_model import MiniConfig, MiniVla
from safe_vla_ros.policies.observation_parts import proprio_vector
from safe_vla_ros.policies.pruning_record import make_record
from safe_vla_ros.policies.spec import (
    LARGEST_CHUNK,
    apply_policy_file,
    check_integer,
    check_numbers,
    read_config,
)
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.policies.tokenizer_file import encode_text, read_tokenizer
from safe_vla_ros.pruning import EpisodeState, make_episode
from safe_vla_ros.pruning.saliency import attention_saliency
from safe_vla_ros.types import PolicySpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from safe_vla_ros.types import (
        ActionChunk,
        EpisodeMemory,
        Float32Array,
        Observation,
        PolicySettings,
        PruningSettings,
        UInt8Array,
    )

WEIGHTS_FILE = 'model.safetensors'
TOKENIZER_FILE = 'tokenizer.json'
_RANGES = {
    'vocab_size': (3, 1_000_000),
    'instruction_length': (1, 512),
    'chunk_size': (1, LARGEST_CHUNK),
    'action_dim': (1, 64),
    'proprio_dim': (1, 1024),
    'hidden_size': (2, 16_384),
    'num_hidden_layers': (1, 256),
    'num_attention_heads': (1, 256),
    'intermediate_size': (1, 65_536),
}
"""Smallest and largest values of config.json."""

_MOST_CAMERAS = 16
_LARGEST_IMAGE = 1024
PAD_TOKEN, UNKNOWN_TOKEN, STOP_TOKEN = '<pad>', '<unk>', '<stop>'


def make_tokenizer(sentences: Iterable[str]) -> Tokenizer:
    """Make a word-level tokenizer that knows the words of some sentences; ids 0..2 are special."""
    words = sorted({word for sentence in sentences for word in sentence.lower().split()})
    vocabulary = [PAD_TOKEN, UNKNOWN_TOKEN, STOP_TOKEN, *words]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN_TOKEN)
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def encode_instruction(tokenizer: Tokenizer, text: str, length: int) -> list[int]:
    """Return exactly ``length`` token ids: padded with 0 or cut."""
    ids = encode_text(tokenizer, text)[:length]
    return ids + [0] * (length - len(ids))


def prepare_image(image: UInt8Array, size: int) -> UInt8Array:
    """Resize to the model's input.

    Args:
        image: uint8 [H, W, 3] RGB.
        size: Side of the square input, pixels.

    Returns:
        uint8 [3, size, size], area-averaged when it shrinks.
    """
    return _channels_first(ImagePreparation(size, resize=_resize)(image))


def _channels_first(image: UInt8Array) -> UInt8Array:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _resize(image: UInt8Array, height: int, width: int) -> UInt8Array:
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: UInt8Array = cv2.resize(image, (width, height), interpolation=method)
    return resized


def model_config(config: dict[str, Any], path: Path) -> MiniConfig:
    """Read the network's sizes from a ``config.json``.

    Raises:
        CheckpointError: A key is missing or unknown, or a value is not allowed.
    """
    fields = {key: value for key, value in config.items() if key != 'model_type'}
    try:
        read = MiniConfig(**fields)
    except TypeError as error:
        msg = f'{path}: {str(error).replace("MiniConfig.__init__()", "config")}'
        raise CheckpointError(msg) from error
    for name, (lowest, highest) in _RANGES.items():
        check_integer(getattr(read, name), lowest, highest, f'{path}: {name}')
    if read.hidden_size % (2 * read.num_attention_heads):
        msg = f'{path}: hidden_size is {read.hidden_size}; allowed is an even number for each head'
        raise CheckpointError(msg)
    cameras = read.cameras
    if not isinstance(cameras, dict) or not 0 < len(cameras) <= _MOST_CAMERAS:
        msg = f'{path}: cameras is {cameras!r}; allowed are up to {_MOST_CAMERAS} sizes by name'
        raise CheckpointError(msg)
    for name, size in cameras.items():
        if not name.isidentifier() or hasattr(torch.nn.ModuleDict, name):
            msg = f'{path}: cameras has the name {name!r}, which no camera can have'
            raise CheckpointError(msg)
        check_integer(size, 1, _LARGEST_IMAGE, f'{path}: cameras.{name}')
    patches = read.patch_sizes
    if not isinstance(patches, dict) or set(patches) != set(cameras):
        msg = f'{path}: patch_sizes is {patches!r}; allowed is a size for each of {list(cameras)}'
        raise CheckpointError(msg)
    for name, size in patches.items():
        check_integer(size, 1, cameras[name], f'{path}: patch_sizes.{name}')
    for name in ('proprio_mean', 'proprio_std'):
        check_numbers(getattr(read, name), read.proprio_dim, f'{path}: {name}')
    return read


def read_spec(path: Path) -> PolicySpec:
    """Read what the directory says about the policy, without its weights."""
    config = model_config(read_config(path), path / 'config.json')
    spec = PolicySpec(
        name=path.name,
        kind='mini',
        cameras=tuple(config.cameras),
        num_cameras=len(config.cameras),
        chunk_size=config.chunk_size,
        num_layers=config.num_hidden_layers,
        proprio_dim=config.proprio_dim,
        rotation='axis_angle',
        frame='base',
    )
    return apply_policy_file(spec, path)


def load(
    path: Path, settings: PolicySettings, progress: Callable[[float], None] | None = None
) -> MiniPolicy:
    """Load the policy; its weights are read in one piece.

    Raises:
        CheckpointError: A file is missing or does not fit the configuration.
    """
    spec = read_spec(path)
    config = model_config(read_config(path), path / 'config.json')
    device = choose_device(settings.device)
    tokenizer = read_tokenizer(path / TOKENIZER_FILE, config.vocab_size)
    model = _load_model(config, path / WEIGHTS_FILE)
    if progress is not None:
        progress(1.0)
    model.eval().to(device, choose_dtype(settings.dtype, device, torch.float32))
    return MiniPolicy(spec, settings, model, tokenizer)


class MiniPolicy:
    """The bundled policy as ``types.Policy``."""

    def __init__(
        self, spec: PolicySpec, settings: PolicySettings, model: MiniVla, tokenizer: Tokenizer
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._model = model
        self._tokenizer = tokenizer
        self._config = model.config
        self._weight = model.placeholders
        use_tapping_attention(model.decoder)

    @property
    def spec(self) -> PolicySpec:
        """What the policy's directory says about itself."""
        return self._spec

    def new_episode(self) -> EpisodeState:
        """Return an empty memory."""
        return make_episode()

    @torch.inference_mode()
    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        """Run the model once; see ``types.Policy``.

        Raises:
            ObservationError: The observation does not fit the model.
            NonFiniteError: Something in the model or its output is not finite.
        """
        if not isinstance(memory, EpisodeState):
            msg = f'the memory must come from new_episode, got {type(memory).__name__}'
            raise TypeError(msg)
        device, dtype = self._weight.device, self._weight.dtype
        stopwatch = StageTimer(device)
        with stopwatch.stage('prepare'):
            images, proprio = self._prepare(observation)
            text = encode_instruction(
                self._tokenizer, observation.instruction, self._config.instruction_length
            )
            ids = torch.tensor([text], device=device)
        with stopwatch.stage('encode'):
            visual = self._model.encode_images({k: v.to(device) for k, v in images.items()})
            embeddings = self._model.assemble(visual.to(dtype), proprio.to(device), ids)
        output = run_decoder(
            self._model.decoder,
            embeddings,
            layout=self._model.layout,
            episode=memory,
            settings=pruning,
            stamp_s=observation.stamp_s,
            patches=lambda: self._model.patches(images).to(device),
        )
        with stopwatch.stage('head'):
            actions = self._model.action_head(output.rows(self._model.action_slice))
            values = actions[0].float().cpu().numpy()
        names = self._settings.cameras
        grids = dict(zip(names, self._config.grids.values(), strict=True))
        record = make_record(output, grids, pruning, stopwatch.milliseconds())
        return to_chunk(values, self._settings, record)

    @torch.inference_mode()
    def saliency_by_layer(self, observation: Observation) -> dict[str, Float32Array]:
        """Tell what the action rows attend to in every layer of an unpruned pass.

        Returns:
            By camera, float32 [layers, rows, columns]: the mean over heads and action rows of the
            attention probability. All cameras and all other tokens together sum to 1 in a layer.

        Raises:
            ObservationError: The observation does not fit the model.
        """
        model, config = self._model, self._config
        device, dtype = self._weight.device, self._weight.dtype
        images, proprio = self._prepare(observation)
        text = encode_instruction(
            self._tokenizer, observation.instruction, config.instruction_length
        )
        visual = model.encode_images({k: v.to(device) for k, v in images.items()})
        embeddings = model.assemble(
            visual.to(dtype), proprio.to(device), torch.tensor([text], device=device)
        )
        layers = _EveryLayer(model.action_slice, model.visual_slice)
        model.decode_full(embeddings, is_causal=False, saliency_tap=layers)
        saliency = torch.stack(layers.saliency).cpu().numpy()
        grids = dict(zip(self._settings.cameras, config.grids.values(), strict=True))
        ends = np.cumsum([rows * columns for rows, columns in grids.values()])
        parts = np.split(saliency, ends[:-1], axis=1)
        return {
            name: part.reshape(-1, *grid)
            for (name, grid), part in zip(grids.items(), parts, strict=True)
        }

    def _prepare(self, observation: Observation) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        names = self._settings.cameras
        if len(names) != len(self._config.cameras):
            msg = f'the policy takes {len(self._config.cameras)} cameras, got {list(names)}'
            raise ObservationError(msg)
        images = {}
        for name, (model_name, size) in zip(names, self._config.cameras.items(), strict=True):
            prepare = ImagePreparation.of(self._settings, size, _resize)
            image = _channels_first(prepare(observation.images[name]))
            images[model_name] = torch.from_numpy(image)[None]
        proprio = proprio_vector(observation, self._config.proprio_dim)
        return images, torch.from_numpy(proprio).float()[None]


class _EveryLayer:
    """Reads the saliency of every layer that it is passed to; see ``attention.SaliencyTap``."""

    def __init__(self, rows: slice, columns: slice) -> None:
        self._rows, self._columns = rows, columns
        self.saliency: list[torch.Tensor] = []

    def read(self, query: torch.Tensor, key: torch.Tensor, *, scaling: float, **_: Any) -> None:
        """Take the saliency of a layer, float32 [N]."""
        asked = query[:, :, self._rows]
        saliency = attention_saliency(asked, key, columns=self._columns, scaling=scaling)
        self.saliency.append(saliency[0])


def _load_model(config: MiniConfig, path: Path) -> MiniVla:
    """Build the network once the file is known to hold all of it."""
    stored = read_header(path)
    with torch.device('meta'):
        expected = MiniVla(config).state_dict()
    for name, tensor in expected.items():
        if name not in stored:
            msg = f'{path}: tensor {name!r} is missing'
            raise CheckpointError(msg)
        if stored[name].shape != tensor.shape:
            got, wanted = list(stored[name].shape), list(tensor.shape)
            msg = f'{path}: tensor {name!r} has shape {got}, config.json asks for {wanted}'
            raise CheckpointError(msg)
    model = MiniVla(config)
    with opened(path, CheckpointError) as file:
        model.load_state_dict({name: read_tensor(stored[name], file) for name in expected})
    return model
