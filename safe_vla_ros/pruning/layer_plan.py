"""Settings made concrete for a decoder of L layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.pruning.fusion import FUSIONS, REFERENCE
from safe_vla_ros.types import PruningSettings

ACTION_ROWS = 'action'
LAST_ROW = 'last'
QUERY_ROWS = (ACTION_ROWS, LAST_ROW)


@dataclass(frozen=True)
class LayerPlan:
    """Which layers are read, and with which query rows.

    Attributes:
        pruning: K, the first layer that sees only kept tokens.
        shallow: l_s = K - 1.
        refresh: l_r, where the forecast is tested.
        remembered: Layers whose saliency a key step stores, in this order; ``refresh`` first.
        averaged: Which of ``remembered`` (by place) the fusion averages.
        query_rows: ``action`` or ``last``.
    """

    pruning: int
    shallow: int
    refresh: int
    remembered: tuple[int, ...]
    averaged: slice
    query_rows: str

    def rows_at(self, layer: int) -> str:
        """Query rows to read at a layer.

        At layer 0 action placeholders of OpenVLA-OFT are zero and attend uniformly, so that layer
        is read at the last row.
        """
        return LAST_ROW if layer == 0 else self.query_rows


@lru_cache(maxsize=64)
def plan_layers(settings: PruningSettings, num_layers: int) -> LayerPlan:
    """Resolve defaults and check every layer number.

    Args:
        settings: What the user asks for.
        num_layers: L of the decoder.

    Returns:
        The layers to read.

    Raises:
        ParameterError: A layer or a name is not allowed for this decoder.
    """
    _check(settings.fusion in FUSIONS, 'pruning.fusion', settings.fusion, ' or '.join(FUSIONS))
    _check(
        settings.query_rows in QUERY_ROWS,
        'pruning.query_rows',
        settings.query_rows,
        ' or '.join(QUERY_ROWS),
    )
    pruning = settings.layer
    _check(1 <= pruning < num_layers, 'pruning.layer', pruning, f'1..{num_layers - 1}')
    layers = settings.forecast_layers
    allowed = f'different layers in 0..{num_layers - 1}'
    if settings.fusion == REFERENCE:
        layers = layers or (0, num_layers - 1)
        allowed += ', the first one 0 with fusion reference'
    layers = layers or (num_layers - 1,)
    valid = all(0 <= layer < num_layers for layer in layers) and len(set(layers)) == len(layers)
    if settings.fusion == REFERENCE:
        valid = valid and layers[0] == 0
    _check(valid, 'pruning.forecast_layers', list(layers), allowed)
    return (
        _reference_plan(settings, layers)
        if settings.fusion == REFERENCE
        else _paper_plan(settings, layers)
    )


def _paper_plan(settings: PruningSettings, layers: tuple[int, ...]) -> LayerPlan:
    shallow = settings.layer - 1
    refresh = shallow if settings.refresh_layer is None else settings.refresh_layer
    _check(0 <= refresh <= shallow, 'pruning.refresh_layer', refresh, f'0..{shallow}')
    apart = refresh not in layers
    remembered = (
        (refresh, *layers)
        if apart
        else (
            refresh,
            *(layer for layer in layers if layer != refresh),
        )
    )
    return LayerPlan(
        pruning=settings.layer,
        shallow=shallow,
        refresh=refresh,
        remembered=remembered,
        averaged=slice(1 if apart else 0, None),
        query_rows=settings.query_rows,
    )


def _reference_plan(settings: PruningSettings, layers: tuple[int, ...]) -> LayerPlan:
    _check(
        settings.refresh_layer in (None, 0),
        'pruning.refresh_layer',
        settings.refresh_layer,
        '0 with fusion reference',
    )
    return LayerPlan(
        pruning=settings.layer,
        shallow=settings.layer - 1,
        refresh=0,
        remembered=layers,
        averaged=slice(0, None),
        query_rows=settings.query_rows,
    )


def _check(allowed: bool, name: str, got: object, range_text: str) -> None:
    if not allowed:
        raise ParameterError(f'{name} is {got!r}, allowed is {range_text}')
