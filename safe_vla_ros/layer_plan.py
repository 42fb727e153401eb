"""Which decoder layers pruning may read: the rules, and settings made concrete for L layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from safe_vla_ros.parameter_types import parameter_error
from safe_vla_ros.types import FUSIONS, LAST_ROW, QUERY_ROWS, REFERENCE, PruningSettings

if TYPE_CHECKING:
    from collections.abc import Sequence


_MOST_SALIENCY_LAYERS = 8


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
        """Query rows to read at a layer; see ``rows_at``."""
        return rows_at(layer, self.query_rows)


def rows_at(layer: int, query_rows: str) -> str:
    """Return the query rows to read at a layer.

    At layer 0 action placeholders of OpenVLA-OFT are zero and attend uniformly, so that layer is
    read at the last row.
    """
    return LAST_ROW if layer == 0 else query_rows


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
    check_layers(
        layer=settings.layer,
        refresh_layer=settings.refresh_layer,
        forecast_layers=settings.forecast_layers,
        fusion=settings.fusion,
        query_rows=settings.query_rows,
        num_layers=num_layers,
    )
    shallow = settings.layer - 1
    if settings.fusion == REFERENCE:
        refresh = 0
        forecast = settings.forecast_layers or (0, num_layers - 1)
    else:
        refresh = shallow if settings.refresh_layer is None else settings.refresh_layer
        forecast = settings.forecast_layers or (num_layers - 1,)
    return LayerPlan(
        pruning=settings.layer,
        shallow=shallow,
        refresh=refresh,
        remembered=(refresh, *(layer for layer in forecast if layer != refresh)),
        averaged=slice(0 if refresh in forecast else 1, None),
        query_rows=settings.query_rows,
    )


def saliency_layers(settings: PruningSettings, num_layers: int) -> tuple[int, ...]:
    """Return the layers whose mean attention is the saliency of a method with a context.

    Args:
        settings: What the user asks for.
        num_layers: L of the decoder.

    Returns:
        ``pruning.saliency_layers``; unset, up to eight layers spread evenly from L / 4 to L - 1:
        deep layers decide, and one alone is noisy.

    Raises:
        ParameterError: A layer is not one of the decoder's.
    """
    _check_tapped('pruning.saliency_layers', settings.saliency_layers, num_layers)
    if settings.saliency_layers:
        return settings.saliency_layers
    first, last = num_layers // 4, num_layers - 1
    steps = min(_MOST_SALIENCY_LAYERS, last - first + 1) - 1
    return tuple(first + round(i * (last - first) / max(steps, 1)) for i in range(steps + 1))


def check_layers(
    *,
    layer: int | None = None,
    refresh_layer: int | None = None,
    forecast_layers: Sequence[int] | None = None,
    saliency_layers: Sequence[int] | None = None,
    fusion: str | None = None,
    query_rows: str | None = None,
    num_layers: int | None = None,
) -> None:
    """Check the layer settings against each other and against the decoder.

    Args:
        layer: ``pruning.layer``, K.
        refresh_layer: ``pruning.refresh_layer``; None also means the default.
        forecast_layers: ``pruning.forecast_layers``; empty means the default.
        saliency_layers: ``pruning.saliency_layers``; empty means the default.
        fusion: ``pruning.fusion``.
        query_rows: ``pruning.query_rows``.
        num_layers: L of the decoder.

    None means that a value is not known yet; a rule holds as soon as all that it needs is known.

    Raises:
        ParameterError: A value or a combination is not allowed; the message names the parameter.
    """
    _check_name('pruning.fusion', fusion, FUSIONS)
    _check_name('pruning.query_rows', query_rows, QUERY_ROWS)
    if layer is not None and (layer < 1 or not _inside(layer, num_layers)):
        raise parameter_error(
            'pruning.layer', layer, f'must be 1 to {_last(num_layers)}{_why(num_layers)}'
        )
    _check_forecast(tuple(forecast_layers or ()), fusion, num_layers)
    _check_tapped('pruning.saliency_layers', tuple(saliency_layers or ()), num_layers)
    if refresh_layer is None:
        return
    if fusion == REFERENCE and refresh_layer != 0:
        what = 'must be 0 or unset with pruning.fusion = reference'
        raise parameter_error('pruning.refresh_layer', refresh_layer, what)
    if layer is not None and not 0 <= refresh_layer < layer:
        what = f'must be 0 to {layer - 1}, below pruning.layer = {layer}'
        raise parameter_error('pruning.refresh_layer', refresh_layer, what)


def _check_name(name: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        raise parameter_error(name, value, f'must be one of {", ".join(allowed)}')


def _check_forecast(layers: tuple[int, ...], fusion: str | None, num_layers: int | None) -> None:
    _check_tapped('pruning.forecast_layers', layers, num_layers)
    if fusion == REFERENCE and layers and layers[0] != 0:
        what = 'the first layer must be 0 with pruning.fusion = reference, or leave it unset'
        raise parameter_error('pruning.forecast_layers', layers, what)


def _check_tapped(name: str, layers: tuple[int, ...], num_layers: int | None) -> None:
    what = ''
    if not all(_inside(layer, num_layers) for layer in layers):
        what = f'must be 0 to {_last(num_layers)}{_why(num_layers)}'
    elif len(set(layers)) != len(layers):
        what = 'layers must differ'
    if what:
        raise parameter_error(name, layers, what)


def _inside(layer: int, num_layers: int | None) -> bool:
    return layer >= 0 and (num_layers is None or layer < num_layers)


def _last(num_layers: int | None) -> str:
    return 'the number of layers - 1' if num_layers is None else str(num_layers - 1)


def _why(num_layers: int | None) -> str:
    return '' if num_layers is None else f', the decoder has {num_layers} layers'
