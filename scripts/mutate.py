"""Mutation testing of the receiver: some test should fail for every small change to its code.

    scripts/mutate                     all modules of the safety boundary, two at a time
    scripts/mutate receiver --jobs 4   one module
    scripts/mutate --list              the mutants, without running them

Each mutant is one change of one node of a module's syntax tree: a comparison, a condition, a
constant, an operator, a removed statement, a returned value. It is compiled in a forked child
whose imports find the changed module, so no file is touched, and the receiver's tests run in it
until one fails. A mutant that no test notices survives; survivors that change nothing that can be
observed are explained in `tests/agents/equivalent_mutants.txt`. Exits with 1 if a survivor is not.

Deterministic: the same mutants in the same order; Hypothesis runs derandomised. Not mutated are
docstrings, annotations, the words of messages, and imports.
"""

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "agents" / "flyball_agents"
MODULES = ("receiver", "receiver_store", "easing", "offers", "surface")
TESTS = REPOSITORY / "tests" / "agents"
EXPLAINED = TESTS / "equivalent_mutants.txt"
ORDER = ("test_offers.py", "test_receiver.py", "test_receiver_lease.py", "test_receiver_store.py", "test_adapters.py")
LAST = "test_receiver_histories.py"
LIMIT_S = 60

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}


@dataclass(frozen=True)
class Mutant:
    """One change: what to put where in the tree."""

    module: str
    scope: str
    line: int
    was: str
    now: str
    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST

    @property
    def key(self) -> str:
        """How a mutant is named in the list of explained ones: by its text, not by its line."""
        return f"{self.scope}: {self.was} -> {self.now}"

    def apply(self) -> None:
        """Change the tree."""
        if self.index is None:
            setattr(self.parent, self.field, self.node)
        else:
            getattr(self.parent, self.field)[self.index] = self.node


def mutants_of(module: str, tree: ast.Module) -> Iterator[Mutant]:
    """All mutants of a module in the order of its text."""
    yield from _below(module, module, tree, "", 1)


def _below(module: str, scope: str, parent: ast.AST, statement: str, line: int) -> Iterator[Mutant]:
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        several = isinstance(value, list)
        for index, node in enumerate(value if several else [value]):
            if not isinstance(node, ast.AST) or _untouched(node):
                continue
            text = _first_line(node) if isinstance(node, ast.stmt) else statement
            at = getattr(node, "lineno", line)
            for replacement, label in variants(node):
                ast.fix_missing_locations(ast.copy_location(replacement, node))
                place = index if several else None
                yield Mutant(module, scope, at, text, label, parent, field, place, replacement)
            inner = f"{scope}.{node.name}" if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else scope
            yield from _below(module, inner, node, text, at)


def _untouched(node: ast.AST) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return docstring or isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr, ast.expr_context))


def _first_line(node: ast.AST) -> str:
    return ast.unparse(node).split("\n")[0][:120]


def variants(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """What this node could become instead, and the words for it."""
    if isinstance(node, ast.stmt):
        yield from _statements(node)
    elif isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for other in COMPARISONS[type(op)]:
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                new = ast.Compare(left=node.left, ops=ops, comparators=node.comparators)
                yield new, ast.unparse(new)
    elif isinstance(node, ast.BoolOp):
        yield from _conditions(node)
    elif isinstance(node, (ast.UnaryOp, ast.IfExp)):
        for part in [node.operand] if isinstance(node, ast.UnaryOp) else [node.body, node.orelse]:
            yield part, ast.unparse(part)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        changed = ast.BinOp(left=node.left, op=OPERATORS[type(node.op)](), right=node.right)
        yield changed, ast.unparse(changed)
    elif isinstance(node, ast.comprehension):
        for place in range(len(node.ifs)):
            ifs = [*node.ifs[:place], *node.ifs[place + 1 :]]
            yield (
                ast.comprehension(node.target, node.iter, ifs, node.is_async),
                f"without if {ast.unparse(node.ifs[place])}",
            )
    else:
        yield from _leaves(node)


def _conditions(node: ast.BoolOp) -> Iterator[tuple[ast.AST, str]]:
    swapped = ast.BoolOp(op=ast.Or() if isinstance(node.op, ast.And) else ast.And(), values=node.values)
    yield swapped, ast.unparse(swapped)
    for place in range(len(node.values)):
        rest = [*node.values[:place], *node.values[place + 1 :]]
        less = rest[0] if len(rest) == 1 else ast.BoolOp(op=node.op, values=rest)
        yield less, ast.unparse(less)


def _leaves(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield ast.Name(NAMES[node.id], node.ctx), NAMES[node.id]
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield ast.Attribute(node.value, NAMES[node.attr], node.ctx), NAMES[node.attr]
    elif isinstance(node, ast.Slice) and (node.lower or node.upper):
        yield ast.Slice(), "[:]"


def _constants(node: ast.Constant) -> Iterator[tuple[ast.AST, str]]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value), f"{value} to {not value}"
    elif isinstance(value, (int, float)):
        yield ast.Constant(value + 1), f"{value!r} to {value + 1!r}"
        if value:
            yield ast.Constant(value - 1), f"{value!r} to {value - 1!r}"
    elif isinstance(value, (str, bytes)):
        other: str | bytes = "XX" + value if isinstance(value, str) else b"XX" + value
        yield ast.Constant(other), f"{value!r} to {other!r}"


def _statements(node: ast.stmt) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield ast.Return(ast.Constant(None)), "return None"
    elif isinstance(node, (ast.Expr, ast.Raise, ast.AugAssign, ast.Delete)) or (
        isinstance(node, ast.Assign) and any(isinstance(target, ast.Attribute) for target in node.targets)
    ):
        yield ast.Pass(), "removed"
    elif isinstance(node, (ast.If, ast.While)):
        for truth in (True, False):
            if isinstance(node, ast.While) and truth:
                continue
            kind = type(node)
            yield kind(test=ast.Constant(truth), body=node.body, orelse=node.orelse), f"condition {truth}"
    elif isinstance(node, ast.Continue):
        yield ast.Break(), "break"
    elif isinstance(node, ast.Break):
        yield ast.Continue(), "continue"
    elif isinstance(node, ast.For):
        yield ast.For(node.target, ast.Tuple([], ast.Load()), node.body, node.orelse), "over nothing"


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes imports of one module find a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of the changed module only."""
        if fullname != self.name:
            return None
        del path, target
        return importlib.util.spec_from_loader(fullname, self, origin=str(self.path))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """The default."""
        del spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed code."""
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def run_tests(mutant: Mutant | None, tree: ast.Module | None, scratch: Path) -> int:
    """In a child: run the tests against the mutant; 0 if none fails."""
    import pytest

    if mutant is not None and tree is not None:
        mutant.apply()
        path = PACKAGE / f"{mutant.module}.py"
        sys.meta_path.insert(0, Changed(f"flyball_agents.{mutant.module}", path, tree))
    files = [str(TESTS / name) for name in (*ORDER, LAST)]
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={scratch}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what the parent imported already
    return int(pytest.main([*options, *files]))


def fork(mutant: Mutant | None, tree: ast.Module | None, scratch: Path) -> int:
    """Start a child for one mutant and return its process id."""
    child = os.fork()
    if child:
        return child
    signal.alarm(LIMIT_S)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(scratch)
    code = 1
    try:
        code = run_tests(mutant, tree, scratch)
        sys.stdout.flush()
    finally:
        os._exit(code)


def run_all(mutants: Sequence[tuple[Mutant, ast.Module]], jobs: int, scratch: Path) -> list[Mutant]:
    """Run every mutant; the survivors, in order."""
    waiting = list(enumerate(mutants))[::-1]
    under_way: dict[int, int] = {}
    survived: list[int] = []
    done = 0
    while waiting or under_way:
        while waiting and len(under_way) < jobs:
            number, (mutant, tree) = waiting.pop()
            under_way[fork(mutant, tree, scratch / str(number))] = number
        child, status = os.wait()
        number = under_way.pop(child)
        shutil.rmtree(scratch / str(number), ignore_errors=True)
        done += 1
        if status == 0:
            survived.append(number)
            mutant = mutants[number][0]
            print(f"  survived: {mutant.module}.py:{mutant.line}: {mutant.was}  ->  {mutant.now}", flush=True)
        if done % 50 == 0:
            print(f"  {done} of {len(mutants)} done", flush=True)
    return [mutants[number][0] for number in sorted(survived)]


def explained() -> dict[str, str]:
    """The mutants that are known to change nothing observable, each with its reason."""
    if not EXPLAINED.exists():
        return {}
    entries = (line.split(" | ") for line in EXPLAINED.read_text().splitlines() if line and not line.startswith("#"))
    return {key.strip(): reason.strip() for key, reason in entries}


def main(arguments: Sequence[str]) -> int:
    """Run, report, and judge."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description="Mutation testing of the receiver.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="name the mutants and stop")
    options = parser.parse_args(arguments)
    if unknown := set(options.modules) - set(MODULES):
        parser.error(f"no such module: {', '.join(sorted(unknown))}")
    mutants: list[tuple[Mutant, ast.Module]] = []
    for module in options.modules or MODULES:
        tree = ast.parse((PACKAGE / f"{module}.py").read_text())
        mutants += [(mutant, tree) for mutant in mutants_of(module, tree)]
    if options.list:
        for mutant, _ in mutants:
            print(f"{mutant.module}.py:{mutant.line}: {mutant.was}  ->  {mutant.now}")
        return 0
    os.chdir(REPOSITORY)
    import hypothesis.stateful
    import pytest

    del hypothesis, pytest  # imported once here, so that no child has to
    scratch = Path(tempfile.mkdtemp(prefix="flyball-mutate-"))
    try:
        print(f"{len(mutants)} mutants; first the tests without any", flush=True)
        _, status = os.waitpid(fork(None, None, scratch / "none"), 0)
        if status != 0:
            print("the tests fail without any mutant: nothing to learn")
            return 2
        start = time.monotonic()
        survivors = run_all(mutants, options.jobs, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return report(len(mutants), survivors, time.monotonic() - start)


def report(count: int, survivors: Sequence[Mutant], seconds: float) -> int:
    """Print the figure; 1 if a survivor has no explanation."""
    known = explained()
    open_ones = [mutant for mutant in survivors if mutant.key not in known]
    killed = count - len(survivors)
    print(f"{killed} of {count} mutants killed ({100 * killed / count:.1f} %) in {seconds:.0f} s")
    print(f"{len(survivors) - len(open_ones)} survivors are explained as equivalent, {len(open_ones)} are not")
    for mutant in open_ones:
        print(f"{mutant.key} | ")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
