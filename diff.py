"""What one algorithm file does otherwise than another, in colour. The marks of copied blocks do not count."""

import ast
import contextlib
import itertools
from difflib import SequenceMatcher

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(a: str, b: str, old: str, new: str, side_by_side: bool, context: int, stat: bool) -> None:
    """Prints how many lines of `old`, the text of a, `new`, that of b, removes and adds and, without `stat`, which."""
    old, new = ([line.split("  # Copied from ")[0] for line in text.splitlines()] for text in (old, new))
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    changes = [code[1:] for code in matcher.get_opcodes() if code[0] != "equal"]
    removed, added = (sum(code[k + 1] - code[k] for code in changes) for k in (0, 2))
    console = Console(highlight=False, soft_wrap=not side_by_side)
    console.print(Text(f"{a} -> {b}: lines removed: {removed}, added: {added}, the same: {len(new) - added}"))
    if stat:
        return
    scopes_old, scopes_new = scopes(old), scopes(new)
    for group in matcher.get_grouped_opcodes(context):
        _, i, i_end, j, j_end = next(code for code in group if code[0] != "equal")
        scope = scopes_new[j] if j < j_end else scopes_old[i]
        console.print(Text(f"\n{scope or 'top level'}, line {group[0][3] + 1}", "bold cyan"))
        table = Table.grid(expand=True, padding=(0, 1))
        table.add_column(ratio=1, overflow="fold"), table.add_column(ratio=1, overflow="fold")
        for tag, i, i_end, j, j_end in group:
            same = tag == "equal"
            if side_by_side:
                styles = ("dim", "dim") if same else ("red", "green")
                for pair in itertools.zip_longest(old[i:i_end], new[j:j_end], fillvalue=""):
                    table.add_row(*(Text(line, style) for line, style in zip(pair, styles)))
                continue
            for line in [] if same else old[i:i_end]:
                console.print(Text(f"- {line}", "red"))
            for line in new[j:j_end]:
                console.print(Text(f"  {line}", "dim") if same else Text(f"+ {line}", "green"))
        console.print(table) if side_by_side else None


def scopes(lines: list[str]) -> list[str]:
    """For each line the class and function around it, as in `Agent.update`; empty at the top level"""
    names = [""] * (len(lines) + 1)

    def visit(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                name = f"{outer}.{child.name}".strip(".")
                names[child.lineno - 1 : child.end_lineno] = [name] * (child.end_lineno - child.lineno + 1)
                visit(child, name)

    with contextlib.suppress(SyntaxError):  # a fork half written has no scopes
        visit(ast.parse("\n".join(lines)), "")
    return names
