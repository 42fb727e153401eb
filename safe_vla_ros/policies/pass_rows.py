"""Which rows are in the stream of a pass, and what a layer must know of them."""

from __future__ import annotations

import torch
from torch import Tensor

from safe_vla_ros.pruning import SequenceLayout
from safe_vla_ros.pruning.pass_plan import Selection, StandIns
from safe_vla_ros.types import ALL_ROWS


class PassRows:
    """The rows that the next layer runs; the one place where a pass gets fewer of them.

    Knows nothing of a model's layers, so any decoder's driver can use it. Shapes depend on the
    plan alone: there is no mask to compress and nothing is read back from the device.

    Attributes:
        hidden: Hidden states of these rows, [1, n, D]; the driver puts each layer's output here.
        rotary: Cosine and sine at their positions, [1, n, d] each.
        positions: Their original positions, int64 [n].
        mask: Attention mask [1, 1, n, S'] for S' keys; None where order and a causal flag say all.
        kept: Visual indices still in the stream, ascending int64 [M]; None when all are.
    """

    def __init__(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, ...],
        layout: SequenceLayout,
        *,
        context: bool,
    ) -> None:
        """Begin with all rows.

        Args:
            hidden: Input embeddings [1, S, D].
            rotary: Cosine and sine of all positions, [1, S, d] each.
            layout: Where everything stands.
            context: Whether rows that leave stay visible as stored keys and values.
        """
        self.hidden = hidden
        self.rotary = rotary
        self.positions = torch.arange(layout.length, device=hidden.device)
        self.mask: Tensor | None = None
        self.kept: Tensor | None = None
        self._layout = layout
        self._context = context
        self._all_positions = self.positions
        self._all_rotary = rotary
        self._visual_rows = layout.total
        self._log_counts: Tensor | None = None

    @property
    def count(self) -> int:
        """n, rows that the next layer runs."""
        return self.hidden.shape[1]

    @property
    def keys(self) -> int:
        """S', keys that each row may attend to."""
        return self._layout.length if self._context else self.count

    @property
    def columns(self) -> slice:
        """Where the visual tokens stand among the keys."""
        start = self._layout.visual.start
        return slice(start, start + (self._layout.total if self._context else self._visual_rows))

    def narrow(self, selection: Selection) -> None:
        """Let the rows of all other visual tokens leave the stream.

        Args:
            selection: Which go on, and what stands for the others.

        Raises:
            ValueError: There are stand-ins, but with a context nothing needs one.
        """
        kept, ins = selection.kept, selection.stand_ins
        start = self._layout.visual.start
        places = kept if self.kept is None else torch.searchsorted(self.kept, kept)
        order = self._all_positions
        tail = order[start + self._visual_rows : self.count]
        rows = torch.cat([order[:start], places + start, tail])
        visual = self.hidden[:, start : start + self._visual_rows]
        self.hidden = self.hidden.index_select(1, rows)
        self.positions = self.positions.index_select(0, rows)
        if self._log_counts is not None:
            self._log_counts = self._log_counts.index_select(0, rows)
        self.kept = kept
        self._visual_rows = len(kept)
        if ins is not None:
            if self._context:
                raise ValueError('stand-ins and a context exclude each other')
            self._insert(ins, visual)
        self.rotary = tuple(table.index_select(1, self.positions) for table in self._all_rotary)
        self.mask = self._make_mask()

    def query_rows(self, name: str) -> slice | None:
        """Return where the rows of a name stand among those in the stream.

        Args:
            name: One of ``types.TAPPED_ROWS``.

        Returns:
            Their slice; None when another module runs them.

        Raises:
            ValueError: Some of them have left the stream.
        """
        if name == ALL_ROWS:
            return slice(0, self.count)
        asked = self._layout.rows(name)
        return None if asked is None else self._layout.place(asked, self.count)

    @property
    def bias(self) -> Tensor | None:
        """What is added to the scores of the keys, float32 [S']; None without stand-ins."""
        return self._log_counts

    def spread(self, saliency: Tensor) -> Tensor:
        """Give every visual token its place: from [V] of the columns to [N], 0 for the others."""
        if self.kept is None or self._context:
            return saliency
        return saliency.new_zeros(self._layout.total).index_copy_(0, self.kept, saliency)

    def _insert(self, ins: StandIns, visual: Tensor) -> None:
        behind = self._layout.visual.start + self._visual_rows
        made = torch.matmul(ins.weights.to(visual.dtype), visual)
        counts = self._log_counts
        if counts is None:
            counts = torch.zeros(self.count, device=visual.device)
        self.hidden = torch.cat([self.hidden[:, :behind], made, self.hidden[:, behind:]], dim=1)
        places = ins.places + self._layout.visual.start
        self.positions = torch.cat([self.positions[:behind], places, self.positions[behind:]])
        self._log_counts = torch.cat([counts[:behind], ins.log_counts, counts[behind:]])

    def _make_mask(self) -> Tensor | None:
        layout, counts = self._layout, self._log_counts
        if counts is None and not (self._context and layout.causal):
            return None
        keys = self._all_positions if self._context else self.positions
        seen = keys <= self.positions[:, None]
        if counts is None:
            return seen[None, None]
        scores = counts.expand(self.count, -1)
        if layout.causal:
            scores = scores.masked_fill(~seen, -torch.inf)
        return scores.to(self.hidden.dtype)[None, None]
