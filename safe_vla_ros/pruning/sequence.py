"""Where everything stands in a decoder's input sequence."""

from __future__ import annotations

from dataclasses import dataclass

from safe_vla_ros.types import ACTION_ROWS, ALL_ROWS, LAST_ROW, TEXT_ROWS


@dataclass(frozen=True)
class SequenceLayout:
    """Positions of a sequence before anything is pruned; batch size 1.

    Attributes:
        length: S, rows.
        visual: Positions of the N visual tokens, cameras one after another.
        tokens_per_camera: Visual tokens by camera; sums to N.
        last_row: Position of the row ``last``.
        action_rows: Positions of the rows ``action``; None when another module runs them after
            this one (an action expert over a prefix).
        text_rows: Positions of the rows ``text``; None takes all that stand between the visual
            tokens and the action placeholders, or the end where there are none.
        causal: Whether a row sees only itself and what stands before it; else it sees all.

    Raises:
        ValueError: The visual slice and the tokens per camera disagree.
    """

    length: int
    visual: slice
    tokens_per_camera: tuple[int, ...]
    last_row: int
    action_rows: slice | None
    text_rows: slice | None = None
    causal: bool = False

    def __post_init__(self) -> None:
        if sum(self.tokens_per_camera) != self.total:
            cameras = self.tokens_per_camera
            msg = f'{self.total} visual tokens, but {cameras} tokens per camera'
            raise ValueError(msg)

    @property
    def total(self) -> int:
        """N, the number of visual tokens."""
        return int(self.visual.stop - self.visual.start)

    def rows(self, name: str) -> slice | None:
        """Return the positions of the rows of that name; None when another module runs them.

        Args:
            name: One of ``types.TAPPED_ROWS``.
        """
        actions = self.action_rows
        if name == ACTION_ROWS:
            return actions
        if name == LAST_ROW:
            return slice(self.last_row, self.last_row + 1)
        if name == ALL_ROWS:
            return slice(0, self.length)
        if name != TEXT_ROWS:
            raise ValueError(f'no rows are called {name!r}')
        if self.text_rows is not None:
            return self.text_rows
        placeholders = actions is not None and actions.start < self.last_row
        return slice(self.visual.stop, actions.start if actions and placeholders else self.length)

    def early(self, name: str) -> str:
        """Return the rows to read where the answer is needed before the pass has ended.

        ``name`` itself, or ``last`` when its rows come from another module only afterwards.
        """
        return LAST_ROW if self.rows(name) is None else name

    def place(self, rows: slice, count: int) -> slice:
        """Return where a run of rows stands in a stream that visual rows have left.

        Args:
            rows: Slice of 0..S-1 before or after the visual tokens.
            count: Rows in the stream.

        Raises:
            ValueError: Visual rows have left, and the slice holds some.
        """
        start, stop, _ = rows.indices(self.length)
        visual = self.visual
        if start >= visual.stop:
            gone = self.length - count
            return slice(start - gone, stop - gone)
        if stop <= visual.start or count == self.length:
            return slice(start, stop)
        raise ValueError(
            f'rows {start}..{stop - 1} hold visual tokens '
            f'({visual.start}..{visual.stop - 1}), which pruning may have dropped'
        )
