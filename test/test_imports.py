"""No two modules of the package import each other, not even for their types.

The layers are a contract of import-linter; it leaves open what happens inside a layer.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'safe_vla_ros'


def read_modules():
    """Return the source of every module by its dotted name."""
    modules = {}
    for path in (ROOT / PACKAGE).rglob('*.py'):
        parts = path.relative_to(ROOT).with_suffix('').parts
        name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
        modules[name] = path.read_text(encoding='utf-8')
    return modules


def imports_of(source, known):
    """Return the known modules that a source imports, under TYPE_CHECKING and in functions, too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f'{node.module}.{alias.name}'
                found.add(inner if inner in known else node.module)
    return found & set(known)


def find_pairs(modules):
    """Return the pairs of modules that import each other, sorted."""
    imports = {name: imports_of(source, modules) for name, source in modules.items()}
    return sorted(
        (name, other)
        for name, others in imports.items()
        for other in others
        if name < other and name in imports[other]
    )


def test_a_pair_is_found_also_where_one_import_is_for_types_only_or_in_a_function():
    modules = {
        'p': '',
        'p.a': 'from __future__ import annotations\nif TYPE_CHECKING:\n    from p.b import B',
        'p.b': 'from p import a, c',
        'p.c': 'def f():\n    import p.b',
        'p.d': 'from p.a import A',
    }
    assert find_pairs(modules) == [('p.a', 'p.b'), ('p.b', 'p.c')]


def test_no_two_modules_import_each_other():
    assert find_pairs(read_modules()) == []
