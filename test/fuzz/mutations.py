"""Changes to bytes, to trees of JSON or YAML, and to the headers of safetensors files."""

from __future__ import annotations

import copy
import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

INTEGERS = (0, 1, 2, 127, 128, 255, 256, 65_535, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63)
SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    *INTEGERS,
    10**30,
    0.5,
    -0.0,
    1e308,
    float('inf'),
    float('nan'),
    '',
    'x',
    'x' * 5000,
    '\0',
    '../..',
    '\ud800',
    'äöü🟥',
    [],
    {},
    [[]],
    [None],
    [1, 'x'],
    {'': ''},
    {'a': {'b': {'c': []}}},
)


def change_bytes(random: Random, data: bytes, times: int | None = None) -> bytes:
    """Change bytes in a few places: flipped, set, removed, doubled, cut, or made large numbers."""
    changed = bytearray(data)
    for _ in range(times or random.choice((1, 1, 1, 2, 4, 16))):
        if not changed:
            changed += b'\0'
        at = random.randrange(len(changed))
        end = min(len(changed), at + random.choice((1, 2, 4, 8, 64, 1024)))
        kind = random.randrange(8)
        if kind == 0:
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            changed[at] = random.randrange(256)
        elif kind == 2:
            del changed[at:end]
        elif kind == 3:
            changed[at:at] = changed[at:end]
        elif kind == 4:
            del changed[at:]
        elif kind == 5:
            changed[at:end] = random.randbytes(end - at)
        elif kind == 6:
            changed[at:at] = random.randbytes(random.randrange(32))
        else:
            order, code = random.choice('<>'), random.choice('BHIQ')
            number = random.choice(INTEGERS) % 2 ** (8 * struct.calcsize(order + code))
            content = struct.pack(order + code, number)
            changed[at : at + len(content)] = content
    return bytes(changed)


def change_tree(random: Random, tree: Any) -> Any:
    """Change a few values of a tree of dicts and lists: other values, none, more, deeper, moved."""
    try:
        return _change_tree(random, tree)
    except RecursionError:
        return random.choice(SCALARS)


def _change_tree(random: Random, tree: Any) -> Any:
    holder = [copy.deepcopy(tree)]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(holder, 0))
        container, key = random.choice(places)
        kind = random.randrange(10)
        if kind <= 5:
            container[key] = copy.deepcopy(random.choice(SCALARS))
        elif kind == 6:
            other, other_key = random.choice(places)
            container[key] = copy.deepcopy(other[other_key])
        elif kind == 7 and container is not holder:
            del container[key]
        elif kind == 8 and isinstance(container, dict):
            container[random.choice(('', 'new', 'x' * 3000, '\ud800'))] = random.choice(SCALARS)
        else:
            deep: Any = random.choice(SCALARS)
            for _ in range(random.choice((3, 50, 2000))):
                deep = [deep]
            container[key] = deep
    return holder[0]


def _places(value: Any, depth: int) -> Any:
    if depth > 20:
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(pairs):
        yield value, key
        if isinstance(child, (dict, list)):
            yield from _places(child, depth + 1)


def change_json(random: Random, data: bytes) -> bytes:
    """Change a JSON file as a tree, or as bytes."""
    if random.randrange(4) == 0:
        return change_bytes(random, data)
    tree = change_tree(random, json.loads(data))
    try:
        return json.dumps(tree).encode()
    except RecursionError:
        return b'[' * 5000


def change_safetensors(random: Random, data: bytes) -> bytes:
    """Change the header of a safetensors file as a tree, or the whole file as bytes."""
    if random.randrange(3) == 0:
        return change_bytes(random, data)
    length = int.from_bytes(data[:8], 'little')
    header = change_json(random, data[8 : 8 + length])
    said = len(header) if random.randrange(8) else random.choice(INTEGERS) % 2**64
    return said.to_bytes(8, 'little') + header + data[8 + length :]
