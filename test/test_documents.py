# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The documents against the code: what they name exists, what they list is complete, and short."""

import ast
from contextlib import redirect_stdout, suppress
from functools import cache
import io
from pathlib import Path
import re

from launch_recorder import Recording
from nightseg_ros.cli.main import EXTRAS, main, VERBS
from nightseg_ros.runtime.backend import BACKENDS
from nightseg_ros.weights import load_weights
import pytest
import yaml

TESTS = Path(__file__).parent
ROOT = TESTS.parent
if not (ROOT / 'docs').is_dir():
    pytest.skip('docs/ is not part of this copy', allow_module_level=True)

LAUNCH = Recording(ROOT / 'launch' / 'night_perception.launch.py')
#: Counted together by the first budget.
COUNTED = ('README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'docs/*.md', 'models/*.md')
#: Words that documents may have, as ``wc -w`` counts them.
BUDGETS = [
    (COUNTED, 16_000), (('README.md',), 1_300), (('docs/performance.md',), 1_200),
    (('docs/results.md',), 2_500), (('docs/reliability.md',), 1_500),
    (('docs/training.md', 'docs/tutorial.md'), 1_800),
]  # fmt: skip
DOCUMENTS = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), ROOT / 'models' / 'README.md'])
#: What the table of faults has to speak of, in its first column.
FAULTS = (
    'silent', 'slow', '200 Hz', 'duplicated', '±1 h', 'clock', 'resolution', 'encoding', '1×1',
    '8K', 'odd', 'zero length', 'step', 'padding', 'too short or long', 'truncated', 'corrupt',
    'bomb', 'black', 'white', 'NaN', '16 cameras', 'restart', 'QoS', 'never reads', 'SIGKILL',
    'SIGINT', 'SIGTERM', 'memory', 'worker', 'disk', 'one name', 'bit-flipped', 'foreign',
    'pickle', 'symlink', 'unreadable', 'replaced', 'YAML', 'command line', 'run time', '/dev/shm',
    'hangs', 'marker', '--force', 'UTF-8', 'aspect', 'illumination', 'ego mask', 'report home',
)  # fmt: skip


def text(document: str | Path) -> str:
    """Return the text of a document."""
    return (ROOT / document).read_text(encoding='utf-8')


def rows(document: str, begin: str, end: str) -> list[list[str]]:
    """Return the cells of the table between two marks, without its head."""
    part = text(document).partition(begin)[2].partition(end)[0]
    lines = [line for line in part.splitlines() if line.startswith('|')][2:]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


def ticked(cells: list[str]) -> set[str]:
    """Return what stands in backticks."""
    return {word for cell in cells for word in re.findall(r'`([^`]+)`', cell)}


def code(document: Path) -> list[str]:
    """Return the lines of code of a document, and what stands in backticks."""
    whole = text(document)
    blocks = re.findall(r'^```\w*\n(.*?)^```', whole, re.DOTALL | re.MULTILINE)
    lines = ''.join(blocks).replace('\\\n', ' ').splitlines()
    prose = re.sub(r'^```.*?^```', '', whole, flags=re.DOTALL | re.MULTILINE)
    spans = [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', prose)]
    return [line.partition(' # ')[0] for line in lines] + spans


@cache
def help_of(verb: str) -> str:
    """Return the help of a verb."""
    with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
        main([*verb.split(), '--help'])
    return shown.getvalue()


@cache
def headings(document: Path) -> set[str]:
    """Return the anchors of a document, as GitHub makes them."""
    titles = re.findall(r'^#+ (.*)$', text(document), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@cache
def defined_in(file: str) -> set[str]:
    """Return the functions of a test file."""
    tree = ast.parse((TESTS / file).read_text(encoding='utf-8'))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(('globs', 'most'), BUDGETS, ids=lambda value: str(value)[:30])
def test_documents_stay_short(globs, most):
    files = [file for pattern in globs for file in ROOT.glob(pattern)]
    assert sum(len(text(file).split()) for file in files) <= most


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
class TestWhatADocumentNames:
    """Links, files, tests, verbs with their options, targets, arguments and extras exist."""

    def test_links(self, document):
        for link in re.findall(r'\]\(([^)\s]+)\)', text(document)):
            file, _, anchor = link.partition('#')
            target = (document.parent / file).resolve() if file else document
            if not link.startswith('http'):
                assert target.exists(), link
                assert not anchor or anchor in headings(target), link

    def test_files(self, document):
        whole = text(document)
        for name in re.findall(
            r'\b((?:bench|config|docs|launch|test|results)/[\w./]+\.\w+)', whole
        ):
            places = (ROOT / name, ROOT / 'docs' / name, ROOT / 'test' / name)
            assert any(place.exists() for place in places), name
        for file, function in re.findall(r'\b(test_\w+\.py)(?:::(\w+))?', whole):
            assert (TESTS / file).is_file(), file
            assert not function or function in defined_in(file), f'{file}::{function}'

    def test_commands(self, document):
        targets = re.findall(r'^([a-z]+):', text('Makefile'), re.MULTILINE)
        for line in code(document):
            for target in re.findall(r'(?:^|; |&& )make ([a-z]+)', line):
                assert target in targets, line
            launched = line.partition('.launch.py ')[2] or (
                ':=' in line and ' ' not in line and line
            )
            for argument in re.findall(r'(?:^| )([a-z_]+):=', launched or ''):
                assert argument in {*LAUNCH.arguments, 'prefix'}, line
            for extra in re.findall(r'nightseg\[(\w+)\]', line):
                assert extra in {*EXTRAS.values(), 'dev', 'test'}, line
            for rest in re.findall(r'^(?:ros2 run nightseg )?nightseg ((?:[a-z_]+ ?)+.*)', line):
                words = rest.split()
                verb = ' '.join(words[:2]) if ' '.join(words[:2]) in VERBS else words[0]
                assert verb in VERBS, line
                # a recipe takes its settings from a file as well
                known = help_of(verb) + '--config' * verb.startswith(('train', 'sweep'))
                for option in re.findall(r'(?<!\S)(--[\w-]+)', rest):
                    assert option in known, f'{line}: {option}'


def test_the_readme_shows_parameters_as_they_are():
    defaults = yaml.safe_load(text('config/night_perception.yaml'))['/**']['ros__parameters']
    shown = rows('README.md', '\n## Parameters that matter\n', '\n## ')
    assert len(shown) == 8
    for cells in shown:
        value = defaults
        for key in cells[0].strip('`').split('.'):
            value = value[key]
        assert yaml.safe_load(cells[1].strip('`')) == value, cells


def test_the_readme_names_topics_that_exist():
    topics = ticked(
        [row[0] for row in rows('docs/node.md', '<!-- topics -->', '<!-- /topics -->')]
    )
    section = text('README.md').partition('\n## Topics\n')[2].partition('\n## ')[0]
    outputs = section.partition('/nightseg/`')[2].partition('.')[0]
    assert ticked([outputs]) <= topics and ticked([outputs])


def test_every_backend_is_in_the_lists():
    """In the table of the vehicle, in the launch argument, and in the node's parameter."""
    table = rows('docs/deployment.md', '\n## Networks\n', '**A network')
    argument = LAUNCH.arguments['backend'].description
    for backend in BACKENDS:
        assert backend in ticked([row[0] for row in table]), backend
        assert re.search(rf'(?<![\w-]){backend}(?![\w-])', argument), backend


def test_every_variable_is_in_the_list():
    used = {
        name
        for file in (ROOT / 'nightseg_ros').rglob('*.py')
        for name in re.findall(r'NIGHTSEG_\w+', text(file))
    }
    table = rows('docs/deployment.md', '<!-- environment -->', '<!-- /environment -->')
    assert ticked([row[0] for row in table]) == used


def test_every_exit_code_of_the_command_is_in_the_list():
    returned = re.findall('^ +return (.*)$', text('nightseg_ros/cli/main.py'), re.MULTILINE)
    codes = {int(number) for value in returned for number in re.findall(r'\b\d+\b', value)}
    table = rows('docs/deployment.md', '<!-- exit codes -->', '<!-- /exit codes -->')
    shown = {int(code) for row in table for code in row[0].split(',')}
    # 1 comes from the verbs
    assert shown == codes | {1} and 130 in codes


def test_the_architecture_names_every_file_in_its_room():
    table = rows('ARCHITECTURE.md', '\n## Rooms', '\nBeside the package')
    named = {row[0].strip('`/').replace('base', ''): ticked(row[1:]) for row in table}
    for file in sorted((ROOT / 'nightseg_ros').rglob('*.py')):
        room = file.parent.name.replace('nightseg_ros', '')
        assert file.stem == '__init__' or file.stem in named[room], file.relative_to(ROOT)


def test_the_model_card_has_every_file_with_its_license():
    table = rows('models/README.md', '# Model card', '\n\nAll segmenters')
    licenses = {file: row[-1].strip('*') for row in table for file in ticked(row[:1])}
    files = sorted((ROOT / 'models').glob('*.safetensors'))
    assert licenses == {file.name: load_weights(file).metadata.license for file in files}
    free = re.findall(r'`(\w+)`', text('README.md').partition('- The weights ')[2].split('\n')[0])
    assert {f'{name}.safetensors' for name in free} == {
        name for name, terms in licenses.items() if terms == 'Apache-2.0'
    }


def test_every_fault_says_what_happens_and_names_a_test_and_none_is_missing():
    faults = rows('docs/reliability.md', '<!-- faults -->', '<!-- /faults -->')
    for cells in faults:
        assert len(cells) == 3 and all(cells), cells
        assert re.search(r'`test_\w+\.py::\w+`', cells[2]), f'no test: {cells[0]}'
    named = ' '.join(cells[0].lower() for cells in faults)
    assert not [fault for fault in FAULTS if fault.lower() not in named]
