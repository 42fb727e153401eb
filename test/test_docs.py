"""The README and the pages in docs/ say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from safe_vla_ros.runtime.health import STATE_LEVELS
from safe_vla_ros.runtime.parameters import markdown_table

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
README = ROOT / 'README.md'
PAGES = [
    README,
    ROOT / 'CONTRIBUTING.md',
    *sorted(DOCS.glob('*.md')),
    *sorted(ROOT.glob('models/*/README.md')),
    ROOT / 'test' / 'golden' / 'README.md',
]
LONGEST_README = 190
"""Lines."""

every_page = pytest.mark.parametrize(
    'page', PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES]
)


def read(page):
    return page.read_text(encoding='utf-8')


def without_code(text):
    return re.sub(r'```.*?```', '', text, flags=re.DOTALL)


def code_in(text):
    """Return what is marked as code: fenced and indented blocks, and spans."""
    fenced = re.findall(r'```.*?```', text, re.DOTALL)
    rest = without_code(text)
    return '\n'.join(
        [*fenced, *re.findall(r'^ {4,}.*', rest, re.MULTILINE), *re.findall(r'`[^`]+`', rest)]
    )


def between(page, name):
    return read(page).split(f'<!-- {name} -->')[1].split(f'<!-- /{name} -->')[0].strip()


def table_after(page, title):
    """Return the cells of the first table below a heading, without its two first lines."""
    section = read(page).split(f'{title}\n')[1]
    lines = re.search(r'(?:^\|.*\n)+', section, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]


def anchors_of(page):
    headings = re.findall(r'^#+ (.+)$', without_code(read(page)), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_the_readme_is_short():
    assert len(read(README).splitlines()) <= LONGEST_README


@every_page
def test_every_local_link_and_picture_exists(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', read(page)):
        if target.startswith(('http:', 'https:', 'mailto:')):
            continue
        path, _, anchor = target.partition('#')
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert ROOT in linked.parents, target
        if anchor:
            assert anchor in anchors_of(linked), target


@every_page
def test_every_file_that_it_names_exists(page):
    folders = 'config|docs|launch|models|safe_vla_ros|test|tools'
    for name in re.findall(rf'(?<![\w/.:-])(?:{folders})/[\w./-]*', read(page)):
        path = name.rstrip('.')
        assert any((root / path).exists() for root in (ROOT, page.parent)), name


@every_page
def test_every_module_that_it_runs_exists(page):
    for module in re.findall(r'python3? -m (safe_vla_ros[\w.]*)', read(page)):
        path = ROOT / module.rstrip('.').replace('.', '/')
        assert path.with_suffix('.py').is_file() or (path / '__main__.py').is_file(), module


@every_page
def test_every_make_target_and_launch_file_exists(page):
    makefile = read(ROOT / 'Makefile')
    text = read(page) if page == README else code_in(read(page))
    for target in re.findall(r'\bmake ([a-z][\w-]*)', text):
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target
    for name in re.findall(r'(\w+\.launch\.py)', read(page)):
        assert (ROOT / 'launch' / name).is_file(), name


def test_the_readme_shows_how_to_run_and_to_test():
    code = code_in(read(README))
    assert 'make demo' in code
    assert 'make test' in code
    assert 'pruned_policy.launch.py' in code


def test_the_index_lists_every_page():
    index = read(DOCS / 'README.md')
    for page in DOCS.glob('*.md'):
        assert page.name == 'README.md' or f']({page.name})' in index, page.name
    assert '](docs/README.md)' in read(README)


def test_the_table_of_success_is_the_one_that_was_measured():
    measured = json.loads(read(DOCS / 'study' / 'official.json'))['conditions'][0]['variants']
    rows = table_after(README, '### Success')
    assert [label.strip('`') for label, *_ in rows] == list(measured)
    for label, *cells in rows:
        figures = measured[label.strip('`')]['all']
        told = [float(number) for cell in cells for number in re.findall(r'[\d.]+', cell)]
        shares = [
            figures['success_rate'],
            *figures['success_interval_95'],
            figures['full_pass_share'],
            figures['decoder_macs_share'],
        ]
        assert told == [round(100 * share, 1) for share in shares]


def test_the_table_of_latency_is_the_one_that_was_measured():
    measured = json.loads(read(DOCS / 'latency.json'))['methods']
    for label, *cells in table_after(README, '### Latency'):
        figures = next(v for k, v in measured.items() if k.split('@')[0] == label.strip('`'))
        mean, faster, full, macs = (float(re.findall(r'[\d.]+', cell)[0]) for cell in cells)
        assert mean == round(figures['mean_ms'], 1)
        assert faster == round(figures['times_as_fast'], 2)
        assert full == round(100 * figures['full_pass_share'], 1)
        assert macs == round(100 * figures['decoder_macs_share'], 1)


def test_the_table_of_parameters_is_the_one_that_the_node_declares():
    assert between(DOCS / 'parameters.md', 'parameters') == markdown_table().strip()


ROBOTS = ('openvla_oft_libero', 'openvla_bridge')
OTHER_ROBOTS = ('pi05_libero', 'cogact_bridge')
"""Told by how they differ from ``ROBOTS``, one from each."""


def lines_of(content, prefix=''):
    for key, value in content.items():
        if isinstance(value, dict):
            yield from lines_of(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def robot_lines(robot):
    content = yaml.safe_load((ROOT / 'config' / f'{robot}.yaml').read_text(encoding='utf-8'))
    return dict(lines_of(content['/**']['ros__parameters']))


def robot_table(name, column):
    """Return the values of one column by line, without empty cells."""
    shown = between(DOCS / 'robots.md', name)
    rows = [[cell.strip() for cell in row.split('|')[1:-1]] for row in shown.splitlines()[2:]]
    assert all(len(row) == 4 and len(row[3]) > 5 for row in rows)
    return {row[0].strip('`'): yaml.safe_load(row[column]) for row in rows if row[column]}


@pytest.mark.parametrize(('column', 'robot'), list(enumerate(ROBOTS, start=1)))
def test_every_line_of_the_example_robots_is_explained(column, robot):
    assert robot_table('robots', column) == robot_lines(robot)


@pytest.mark.parametrize(('column', 'robot'), list(enumerate(OTHER_ROBOTS, start=1)))
def test_every_difference_of_the_other_example_robots_is_explained(column, robot):
    first, second = robot_lines(ROBOTS[column - 1]), robot_lines(robot)
    expected = {
        line: second.get(line, 'absent')
        for line in {**first, **second}
        if first.get(line) != second.get(line)
    }
    assert robot_table('other robots', column) == expected


@pytest.mark.parametrize(
    ('page', 'shapes'),
    [
        ('measurements.md', ('openvla_oft_7b', 'openvla_7b')),
        ('speed.md', ('openvla_oft_7b', 'openvla_7b', 'mini')),
    ],
)
def test_the_table_of_speeds_is_the_one_that_was_measured(page, shapes):
    pytest.importorskip('torch')
    from safe_vla_ros.bench.speed_report import markdown_table

    files = [DOCS / f'speed_{name}.json' for name in shapes]
    summaries = [json.loads(read(file)) for file in files]
    assert between(DOCS / page, 'speed') == markdown_table(summaries).strip()
    for file, summary in zip(files, summaries, strict=True):
        assert summary['command'].endswith(f'--json docs/{file.name}')


def test_every_launch_argument_is_listed():
    source = read(ROOT / 'launch' / 'pruned_policy.launch.py')
    declared = source.split('ARGUMENTS = (')[1].split('\n)')[0]
    names = re.findall(r"^    \(\s*'(\w+)'", declared, re.MULTILINE)
    listed = [cells[0].strip('`') for cells in table_after(DOCS / 'interface.md', '## Launch')]
    assert listed == names


def test_every_extra_is_listed():
    source = read(ROOT / 'setup.py').split('extras_require={')[1]
    names = re.findall(r"^\s+'(\w+)':", source.split('}')[0], re.MULTILINE)
    listed = [cells[0] for cells in table_after(DOCS / 'installation.md', '## Extras')]
    assert re.findall(r'`(\w+)`', ' '.join(listed)) == names


def test_every_executable_is_listed():
    setup = read(ROOT / 'setup.py')
    nodes = re.findall(r"f'(\w+) = ", setup.split("'console_scripts': [")[1].split(']')[0])
    programs = re.findall(r"'(\w+)'", setup.split('\nPROGRAMS = ')[1].split('\n')[0])
    names = [*nodes, *programs]
    listed = [cells[0] for cells in table_after(DOCS / 'interface.md', '## Executables')]
    assert [name.strip('`') for name in listed] == names


def test_every_topic_and_service_of_the_node_is_listed():
    named = set()
    for path in (ROOT / 'safe_vla_ros' / 'ros').glob('*.py'):
        if not path.name.startswith(('sim_robot', 'episode_driver', 'bag_recorder')):
            named |= set(re.findall(r"'~/(\w+)", read(path)))
    listed = set()
    for title in ('## Topics the node publishes', '## Services'):
        for cells in table_after(DOCS / 'interface.md', title):
            listed |= set(re.findall(r'`~/(\w+)', cells[0]))
    assert listed == named


def test_every_state_is_listed_with_its_level():
    rows = table_after(DOCS / 'interface.md', '## States')
    levels = ('OK', 'WARN', 'ERROR')
    assert {row[0].strip('`'): levels.index(row[1]) for row in rows} == STATE_LEVELS
