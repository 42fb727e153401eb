"""Keys and values of every layer that outlive a step."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueContext:
    """One buffer for the keys and values of all layers, written in place; batch size 1.

    A pass takes it out of the episode's memory and puts it back when it has succeeded, so that
    nobody ever attends to what a failed pass has half written.

    Attributes:
        buffer: Keys (0) and values (1) after rotation, [L, 2, G, S, d].
    """

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer

    @classmethod
    def allocate(
        cls,
        *,
        layers: int,
        heads: int,
        length: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> KeyValueContext:
        """Make room for ``layers`` x ``heads`` x ``length`` keys and values of ``width``."""
        shape = (layers, 2, heads, length, width)
        return cls(torch.empty(shape, dtype=dtype, device=device))

    @property
    def nbytes(self) -> int:
        """Size of the buffer, bytes: 2 L G S d numbers."""
        return self.buffer.nbytes

    def fitted(self, length: int, visual: slice) -> KeyValueContext:
        """Return a context for a sequence of another length, which a prompt with a state has.

        Only visual tokens are ever left out of a pass, so what is stored of them is all that must
        be kept.

        Args:
            length: S of the sequence that comes.
            visual: Where the visual tokens stand in both.
        """
        if length == self.buffer.shape[3]:
            return self
        layers, parts, heads, _, width = self.buffer.shape
        buffer = self.buffer.new_empty(layers, parts, heads, length, width)
        buffer[:, :, :, visual] = self.buffer[:, :, :, visual]
        return KeyValueContext(buffer)

    def move(self, source: Tensor, visual: slice, cosine: Tensor, sine: Tensor) -> None:
        """Let visual tokens start from the keys and values of others, turned to where they stand.

        A rotated key is its content turned by its position, so another turn by the difference of
        positions makes it the key of the same content elsewhere.

        Args:
            source: Visual index that each token takes from, int64 [N].
            visual: Where the N tokens stand among the S.
            cosine: Cosine of the turn by position - source position, [N, d]; both halves alike.
            sine: Sine of it, [N, d].
        """
        for keys, values in self.buffer:
            taken = keys[:, visual].index_select(1, source)
            first, second = taken.chunk(2, dim=-1)
            turned = torch.cat([-second, first], dim=-1)
            keys[:, visual] = taken * cosine + turned * sine
            values[:, visual] = values[:, visual].index_select(1, source)

    def write(
        self, layer: int, key: Tensor, value: Tensor, positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Overwrite rows of one layer and return what its queries attend to.

        Args:
            layer: Which one.
            key: Rotated keys of the rows that ran, [1, G, n, d].
            value: Their values, [1, G, n, d].
            positions: Where they stand, int64 [n]; None when they are all S rows in order.

        Returns:
            Keys and values, [1, G, S, d]; those given where all rows ran, so that such a pass is
            the one without a context to the bit.
        """
        keys, values = self.buffer[layer]
        if positions is None:
            keys.copy_(key[0])
            values.copy_(value[0])
            return key, value
        keys.index_copy_(1, positions, key[0])
        values.index_copy_(1, positions, value[0])
        return keys[None], values[None]
