"""How plain the project's Python is: for every file, how much stands on a line and what is hard to read.

    python benchmarks/plainness.py                  # all files of the project
    python benchmarks/plainness.py pmoe_sac.py      # some

Operations are calls, operators, subscripts, comparisons and comprehensions. Code lines are those that are
neither blank nor a comment. `tests/test_plainness.py` holds the limits.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "baselines", "benchmarks", "envs", "files", "grid", "plots", "policy", "terminal", "tests")
MARK = "# THE SAME IN EVERY FILE"  # above it the method, below it the machinery
LONGEST = 110

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
OPERATORS = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare)
OPERATIONS = (*OPERATORS, *COMPREHENSIONS, ast.Call, ast.Subscript)


def project_files() -> list[Path]:
    return [file for folder in FOLDERS for file in sorted(ROOT.joinpath(folder).glob("*.py"))]


def algorithm_files() -> list[Path]:
    return sorted([*ROOT.glob("pmoe_*.py"), *ROOT.glob("baselines/[!_]*.py")])


def is_code(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith("#")


def statements(tree: ast.AST, kinds: type | tuple[type, ...]) -> Iterator[ast.AST]:
    """Expressions of these kinds whose value nobody takes"""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, kinds):
            yield node


def nested(tree: ast.AST, kinds: type | tuple[type, ...]) -> Iterator[ast.AST]:
    """Expressions of these kinds with another of them inside"""
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            inside = [child for child in ast.walk(node) if isinstance(child, kinds)]
            if len(inside) > 1:
                yield node


def count(nodes: Iterator) -> int:
    return sum(1 for _ in nodes)


def measure(file: Path) -> dict[str, float]:
    text = file.read_text()
    tree = ast.parse(text)
    lines = text.splitlines()
    code = [line for line in lines if is_code(line)]
    operations = [node for node in ast.walk(tree) if isinstance(node, OPERATIONS)]
    walruses = [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]
    lengths = [len(line) for line in lines]
    return {
        "lines": len(lines),
        "code": len(code),
        "a line": len(operations) / max(len(code), 1),
        f"over {LONGEST}": count(length for length in lengths if length > LONGEST),
        "longest": max(lengths, default=0),
        "walrus": len(walruses),
        "tuple": count(statements(tree, ast.Tuple)),
        "and/if": count(statements(tree, (ast.BoolOp, ast.IfExp))),
        "nested if": count(nested(tree, ast.IfExp)),
        "nested for": count(nested(tree, COMPREHENSIONS)),
    }


def parts(file: Path) -> tuple[int, int]:
    """Lines of an algorithm file above the mark and from it on; without the mark, all are above."""
    lines = file.read_text().splitlines()
    marked = [i for i, line in enumerate(lines) if line.startswith(MARK)]
    above = marked[0] if marked else len(lines)
    return above, len(lines) - above


def main(files: list[Path]) -> None:
    algorithms = algorithm_files()
    table = Table("file", box=None)
    for column in measure(Path(__file__)):
        table.add_column(column, justify="right")
    table.add_column("method + machinery", justify="right")
    for file in files:
        row = [f"{x:.2f}" if isinstance(x, float) else str(x) for x in measure(file).values()]
        if file.resolve() in algorithms:
            above, below = parts(file)
            row.append(f"{above} + {below}")
        name = file.resolve().relative_to(ROOT) if file.resolve().is_relative_to(ROOT) else file
        table.add_row(str(name), *row)
    Console(width=150).print(table)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or project_files())
