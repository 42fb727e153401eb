"""Fewer triangles in what is only seen, so that a software renderer keeps up."""

from __future__ import annotations

from typing import Any

import numpy as np

CELL_M = 0.0025
"""Vertices within a cube of this side become one; a pixel of agentview is 3 mm on the table."""

_MESH_GEOM = 7
"""``mujoco.mjtGeom.mjGEOM_MESH``."""


def decimate(model: Any, cell_m: float = CELL_M) -> tuple[int, int]:
    """Simplify every mesh that nothing can touch, in the model itself.

    Do it before a GL context is made, which copies the meshes. Vertices of a cell become the one
    nearest to the cell's middle; triangles that collapse or coincide are dropped. Normals and
    texture coordinates stay with the corners they belong to.

    Args:
        model: A ``mujoco.MjModel``; contact geometry is left as it is.
        cell_m: Side of the cells, metres.

    Returns:
        Triangles before and after, of all meshes.
    """
    before = int(model.mesh_facenum.sum())
    for mesh in _only_seen(model):
        _decimate_mesh(model, mesh, cell_m)
    return before, int(model.mesh_facenum.sum())


def _only_seen(model: Any) -> list[int]:
    is_mesh = model.geom_type == _MESH_GEOM
    touching = is_mesh & ((model.geom_contype != 0) | (model.geom_conaffinity != 0))
    touched = set(model.geom_dataid[touching].tolist())
    return [mesh for mesh in range(model.nmesh) if mesh not in touched]


def _decimate_mesh(model: Any, mesh: int, cell_m: float) -> None:
    first_vertex, vertices = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    first_face, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    rows = slice(first_face, first_face + count)
    stand_in = _stand_ins(model.mesh_vert[first_vertex : first_vertex + vertices], cell_m)
    corners = stand_in[model.mesh_face[rows]]
    kept = _distinct(corners)
    new_rows = slice(first_face, first_face + len(kept))
    for table in (model.mesh_facenormal, model.mesh_facetexcoord):
        table[new_rows] = table[rows][kept]
    model.mesh_face[new_rows] = corners[kept]
    model.mesh_facenum[mesh] = len(kept)


def _stand_ins(positions: Any, cell_m: float) -> Any:
    """Return for every vertex the one that stands for its cell, int [n]."""
    cells = np.floor(positions / cell_m).astype(np.int64)
    distance = np.linalg.norm(positions - (cells + 0.5) * cell_m, axis=1)
    _, cell = np.unique(_row_numbers(cells), return_inverse=True)
    order = np.lexsort((distance, cell))
    first = np.ones(len(order), dtype=bool)
    first[1:] = cell[order][1:] != cell[order][:-1]
    return order[first][cell]


def _distinct(corners: Any) -> Any:
    """Return the rows of triangles [n, 3] that have an area and come first with their corners."""
    a, b, c = corners.T
    whole = np.flatnonzero((a != b) & (b != c) & (a != c))
    _, first = np.unique(_row_numbers(np.sort(corners[whole], axis=1)), return_index=True)
    return whole[np.sort(first)]


def _row_numbers(rows: Any) -> Any:
    """Return int64 [n] that are equal, less or greater as the rows of int [n, 3] are.

    NumPy sorts numbers without Python's lock, and rows with it: the robot's physics, in another
    thread, would stand still for half a second.
    """
    shifted = rows.astype(np.int64) - rows.min(axis=0, initial=0)
    _, second, third = (int(size) + 1 for size in shifted.max(axis=0, initial=0))
    return (shifted[:, 0] * second + shifted[:, 1]) * third + shifted[:, 2]
