# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Change the code in one place at a time and see whether a test notices: ``make mutate``.

Every mutant runs the module's own tests in a fork, up to the first failure; one that no test
notices survives and is printed. SAMPLE mutants of a module are drawn by seed, 0 takes all of
them. Texts of errors, annotations, decorators and docstrings are left alone.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

HERE = Path(__file__).parent
#: Tests by module: those that are about it.
MODULES = {
    'nightseg_ros.perception.router': ('test_router.py',),
    'nightseg_ros.perception.frame': (
        'test_frame.py',
        'test_security.py::test_a_jpeg_of_a_thousand_scans_is_refused_unread',
    ),
    'nightseg_ros.evaluation.metrics': ('test_confusion.py', 'test_metrics.py'),
    'nightseg_ros.evaluation.summary': ('test_metrics.py',),
}
#: Imported before the forks, so that no mutant waits for them.
HEAVY = ('numpy', 'cv2', 'torch', 'torchmetrics.classification', 'hypothesis', 'pytest', 'yaml')
_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip
#: Attributes that hold nothing a program does.
_SKIPPED = ('annotation', 'returns', 'decorator_list', 'type_params')


@dataclass(frozen=True)
class Mutant:
    """A module changed in one place."""

    line: int
    text: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every change of a source text, one at a time."""
    tree = ast.parse(source)
    for number, _ in enumerate(_places(tree)):
        changed = copy.deepcopy(tree)
        node, change = list(_places(changed))[number]
        before = ast.unparse(node)
        change()
        after = ast.unparse(node) if not isinstance(node, _Removed) else 'pass'
        ast.fix_missing_locations(changed)
        yield Mutant(
            line=getattr(node, 'lineno', 0), text=f'{before} → {after}'.replace('\n', ' '),
            tree=changed,
        )  # fmt: skip


_Removed = (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Break)


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, Callable[[], None]]]:
    """Yield each node that can be changed, with what changes it."""
    for parent in _walk(tree):
        for body in (getattr(parent, name, None) for name in ('body', 'orelse', 'finalbody')):
            for index, node in enumerate(body if isinstance(body, list) else ()):
                documented = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                if isinstance(node, _Removed) and not documented:
                    yield node, lambda body=body, index=index: body.__setitem__(index, ast.Pass())
        yield from _changes(parent)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, Callable[[], None]]]:
    def put(name: str, value: Any) -> Callable[[], None]:
        return lambda: setattr(node, name, value)

    if isinstance(node, ast.Compare):
        for index, kind in enumerate(node.ops):
            swapped = [*node.ops[:index], _SWAPS[type(kind)](), *node.ops[index + 1 :]]
            yield node, put('ops', swapped)
    elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in _SWAPS:
        yield node, put('op', _SWAPS[type(node.op)]())
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, put('value', not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield node, put('value', node.value + 1)
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield node, put('test', ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Return) and ast.unparse(node) not in ('return', 'return None'):
        yield node, put('value', ast.Constant(None))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of what is done, and none of what is said about it."""
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
        return
    for name, value in ast.iter_fields(node):
        # what a message says is no behaviour; that there is one is
        if name in _SKIPPED or isinstance(node, (ast.Raise, ast.JoinedStr)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child)


class _Finder(MetaPathFinder):
    """Finds one module in its changed form."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        code = compile(self._tree, str(self._path), 'exec')

        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return code

        loader = Loader(fullname, str(self._path))
        return spec_from_file_location(fullname, self._path, loader=loader)


def passes(name: str, path: Path, tree: ast.Module, tests: tuple[str, ...], limit: float) -> bool:
    """Run the tests in a fork of their own, ``limit`` seconds of processor time at most."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        code = 3
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 1))
            # loading the plugins that happen to be installed takes longer than most tests
            os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'
            sys.meta_path.insert(0, _Finder(name, path, tree))
            import hypothesis
            import pytest

            # an example that fails is enough, it need not become the smallest
            hypothesis.settings.register_profile(
                'mutants', derandomize=True, database=None,
                phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
            )  # fmt: skip
            hypothesis.settings.load_profile('mutants')
            files = [str(HERE / test) for test in tests]
            code = int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', *files]))
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def main() -> int:
    """Mutate the modules named, or all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('modules', nargs='*', help='last parts of their names')
    parser.add_argument('--sample', type=int, default=40, help='mutants a module; 0: all')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    for name in HEAVY:
        importlib.import_module(name)
    # no fork has to look through what all of them share
    gc.freeze()
    killed = total = 0
    for name, tests in MODULES.items():
        if options.modules and name.rpartition('.')[2] not in options.modules:
            continue
        path = HERE.parent / (name.replace('.', '/') + '.py')
        source = path.read_text(encoding='utf-8')
        started = time.process_time(), os.times().children_user
        if not passes(name, path, ast.parse(source), tests, 600):
            print(f'{name}: its tests fail as it is')
            return 1
        limit = 10 + 5 * (os.times().children_user - started[1])
        found = list(mutants(source))
        some = found
        if options.sample:
            some = random.Random(f'{name} {options.seed}').sample(
                found, min(options.sample, len(found))
            )
        alive = [m for m in some if passes(name, path, m.tree, tests, limit)]
        for mutant in alive:
            print(f'  survives: {path.name}:{mutant.line}: {mutant.text[:120]}')
        print(f'{name}: {len(some) - len(alive)} of {len(some)} killed ({len(found)} there are)',
              flush=True)  # fmt: skip
        killed, total = killed + len(some) - len(alive), total + len(some)
    print(f'{killed} of {total} killed: {killed / max(total, 1):.1%}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
