"""The algorithms: which there are, where their files are, how a fork's file becomes one, what two files
differ in.

An algorithm is called by its name, as in `sac`, or by the path of its file, as in `./my_idea.py`.
"""

import ast
import contextlib
import difflib
import hashlib
import itertools
import os
import sys
import traceback
import warnings
from collections.abc import Iterable
from importlib import import_module, util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from .files import read_config, visible

ALGORITHMS = {
    "sac": "pmoe_sac",
    "ppo": "pmoe_ppo",
    "gating-sac": "baselines.gating_sac",
    "mcp-sac": "baselines.mcp_sac",
    "gumbel-sac": "baselines.gumbel_sac",
    "reinforce-sac": "baselines.reinforce_sac",
    "mrp-sac": "baselines.mrp_sac",
    "amortized-sac": "baselines.amortized_sac",
    "mcp-ppo": "baselines.mcp_ppo",
    "dac": "baselines.dac_ppo",
}
SOURCE = "source.py"  # in a run directory, the algorithm's file as it was
OFFERED = (
    "ALGO",
    "FREE",
    "Args",
    "Actor",
    "Envs",
    "check",
    "train",
    "load_actor",
    "run_paths",
)  # by every file


class AlgorithmError(ValueError):
    """Why there is no such algorithm, in one line"""


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint: which of the words was meant"""
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.4)
    if near:
        return f"nearest: {', '.join(near)}"
    return f"there are: {', '.join(words)}"


def nearest_algorithm(word: str) -> str:
    """A hint: the file of that name in this folder or, where there is none, the names that are near"""
    if Path(f"{word}.py").is_file():
        return f"nearest: ./{word}.py"
    return nearest(word, ALGORITHMS)


def is_algorithm(word: str) -> bool:
    """Whether a word names an algorithm or, by its ending, the file of one, which may be missing"""
    return word in ALGORITHMS or word.endswith(".py")


def file_of(algo: str) -> Path:
    """The file of one of the project's algorithms"""
    return Path(__file__).parent / (ALGORITHMS[algo].replace(".", "/") + ".py")


def options_of(algo: str) -> dict[str, str]:
    """An algorithm's options, and what its file says of each; nothing where there is no such file. To load it
    would take seconds."""
    try:
        text = read_text(algo)
        code = ast.parse(text)
    except (AlgorithmError, SyntaxError, ValueError):
        return {}
    lines = text.splitlines()
    options = {}
    for node in ast.walk(code):
        if not isinstance(node, ast.ClassDef) or node.name != "Args":
            continue
        for field in node.body:
            if isinstance(field, ast.AnnAssign):
                last = field.end_lineno or field.lineno
                _, _, comment = lines[last - 1].partition("  # ")
                options |= dict.fromkeys(names_of(field), comment)
    return options


def names_of(field: ast.AnnAssign) -> list[str]:
    """An option's names on the command line, by its line in Args"""
    name = ast.unparse(field.target).replace("_", "-")
    names = [f"--{name}"]
    if ast.unparse(field.annotation) == "bool":
        names.append(f"--no-{name}")
    # Its aliases
    for node in ast.walk(field.annotation):
        if isinstance(node, ast.Constant) and str(node.value).startswith("--"):
            names.append(str(node.value))
    return names


# From a name or a file to a module


def load(algo: str | Path) -> ModuleType:
    """The module of a name or of a file; the project's environments are registered. AlgorithmError: there is
    none."""
    import_module(f"{__package__}.envs")
    # Gymnasium says so of -v4, which the paper's tables need.
    warnings.filterwarnings("ignore", message=".*out of date")
    if algo in ALGORITHMS:
        return import_module(f"{__package__}.{ALGORITHMS[algo]}")
    file = Path(algo)
    if not is_algorithm(file.name):
        raise AlgorithmError(f"unknown algorithm {str(algo)!r}; {nearest_algorithm(str(algo))}, or a file.py")
    for name in ALGORITHMS:
        if file.exists() and file.samefile(file_of(name)):
            return load(name)
    return load_fork(file)


def load_fork(file: Path) -> ModuleType:
    """The module of a file outside the project. AlgorithmError: it is missing, does not run, or is no
    algorithm."""
    text = read_text(file)
    path = file.resolve()
    # A name of its own for each path and text: forks may be called alike, and change between two calls.
    digest = hashlib.sha256(f"{path}\n{text}".encode()).hexdigest()
    name = f"{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(path))
    spec = util.spec_from_file_location(name, path, loader=loader)
    assert spec
    module = util.module_from_spec(spec)
    # Dataclasses, pickle and tyro's help look for a class's module there.
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a file may raise anything
        del sys.modules[name]
        raise AlgorithmError(f"{file} does not load: {described(error, path)}") from None
    missing = [word for word in OFFERED if not hasattr(module, word)]
    if missing:
        del sys.modules[name]
        raise AlgorithmError(f"{file} is no algorithm's file: it lacks {', '.join(missing)}")
    return module


def described(error: BaseException, path: Path) -> str:
    """An error raised by a file, with the last line of that file that was reached, in one line"""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    where = f"line {lines[-1]}, " if lines else ""
    message = " ".join(str(error).split())
    return f"{where}{type(error).__name__}: {message}"


def load_of_run(run_dir: Path) -> ModuleType:
    """The module of the file that a run came from; of a fork that has changed since, or is gone, that of the
    run's copy of it. AlgorithmError: both are gone, or it does not load."""
    file = run_dir / "config.json"
    try:
        config = read_config(file)
    except (OSError, ValueError) as error:
        raise AlgorithmError(f"{file} is not the config.json of a run ({type(error).__name__})") from None
    source = run_dir / SOURCE
    if config["algo"] not in ALGORITHMS and source.is_file() and not is_text_of(source, config.get("file")):
        return load_fork(source)
    try:
        return load_of_config(config)
    except AlgorithmError as error:
        raise AlgorithmError(f"{run_dir}: {error}") from None


def is_text_of(source: Path, file: str | None) -> bool:
    """Whether a run's copy of its algorithm's file is still what that file holds"""
    # os.path, as Path raises an error where a name is too long.
    if not file or not os.path.exists(file):
        return False
    return source.read_bytes() == Path(file).read_bytes()


def load_of_config(config: dict) -> ModuleType:
    """The module by a run's config.json: by its file where that exists, else the project's of that name."""
    algo = config["algo"]
    file = config.get("file")
    # os.path, as Path raises an error where a name is too long.
    if file and os.path.exists(file):
        return load(Path(file))
    # Another installation of the project may have made the run; a fork that is called sac.py may not.
    if algo in ALGORITHMS and (not file or Path(file).stem == file_of(algo).stem):
        return load(algo)
    if not file:
        raise AlgorithmError(f"its config.json does not say where the file of the algorithm {algo!r} is")
    raise AlgorithmError(f"the file of its algorithm {algo!r} is gone: {file}")


# What one file does otherwise than another


def read_text(algo: str | Path) -> str:
    """The text of an algorithm's file. AlgorithmError: there is none."""
    file = file_of(algo) if algo in ALGORITHMS else Path(algo)
    if is_run(file):
        file = file / SOURCE
        if not file.is_file():
            raise AlgorithmError(f"{algo} keeps no {SOURCE}, the copy of its algorithm's file")
    if not file.is_file():
        hint = nearest_algorithm(str(algo))
        raise AlgorithmError(f"{str(algo)!r} is neither an algorithm nor a file; {hint}")
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise AlgorithmError(f"{file} cannot be read ({type(error).__name__})") from None


def is_run(path: Path) -> bool:
    """Whether this is a run directory, by its config.json"""
    return os.path.isfile(os.path.join(path, "config.json"))


def completed(word: str) -> str:
    """A word as it stands or, where only a file of that name and .py is in this folder, that"""
    found = word in ALGORITHMS or os.path.exists(word)
    return f"{word}.py" if not found and os.path.isfile(f"{word}.py") else word


def show_runs(a: Path, b: Path) -> bool:
    """Prints the options, and what else config.json has, in which two runs differ. Whether their code can be
    compared; where it cannot, a line says so. AlgorithmError: a config.json is damaged."""
    from rich.console import Console
    from rich.table import Table

    before = settings_of(a)
    after = settings_of(b)
    table = Table("", "A", "B", box=None)
    for name in before | after:
        values = [settings.get(name, "-") for settings in (before, after)]
        if len(set(values)) > 1:
            table.add_row(name, *values)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"A: {a}\nB: {b}")
    if table.row_count:
        console.print(table)
    else:
        console.print("the options are the same")
    lacking = [str(path) for path in (a, b) if not (path / SOURCE).is_file()]
    if not lacking:
        return True
    hashes = {before.get("source"), after.get("source")}
    told = "it is not known whether the code is the same"
    if None not in hashes:
        told = "the code is the same" if len(hashes) == 1 else "the code differs"
    console.print(f"{told}; no {SOURCE} in {' and '.join(lacking)}")
    return False


def settings_of(run_dir: Path) -> dict[str, str]:
    """What config.json says of a run, as text: its options, algorithm, device, commit, versions"""
    file = run_dir / "config.json"
    try:
        config = read_config(file)
    except (OSError, ValueError):
        raise AlgorithmError(f"{file} is not the config.json of a run") from None
    options = {f"--{name.replace('_', '-')}": value for name, value in config.pop("args").items()}
    versions = config.pop("versions", {})
    if type(versions) is dict:
        config |= versions
    # Where and how it was started says nothing of what it is.
    config.pop("command", None)
    return {name: visible(str(value)) for name, value in (options | config).items()}


def show_diff(a: str, b: str, side_by_side: bool, context: int, stat: bool) -> None:
    """Prints how many lines b removes from a and adds to it and, without `stat`, which. AlgorithmError: one
    of them is no file."""
    from rich.console import Console
    from rich.text import Text

    old = list(lines_of(a).values())
    new = list(lines_of(b).values())
    numbers = [*lines_of(b), "the end"]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    same = sum(block.size for block in matcher.get_matching_blocks())
    console = Console(highlight=False, soft_wrap=not side_by_side)
    removed = len(old) - same
    added = len(new) - same
    console.print(Text(f"{a} -> {b}: lines removed: {removed}, added: {added}, the same: {same}"))
    if stat:
        return
    scopes_old = scopes(old)
    scopes_new = scopes(new)
    for group in matcher.get_grouped_opcodes(context):
        first = numbers[group[0][3]]
        scope = scope_of(group, scopes_old, scopes_new) or "top level"
        console.print(Text(f"\n{scope}, line {first}", "bold cyan"))
        if side_by_side:
            console.print(two_columns(group, old, new))
            continue
        for line in one_column(group, old, new):
            console.print(line)


def lines_of(algo: str) -> dict[int, str]:
    """Of its file, by their numbers, without the marks of copied blocks, which do not count"""
    lines = {}
    for number, line in enumerate(read_text(algo).splitlines(), 1):
        # Where the line is too long for it, the mark stands on a line of its own.
        if not line.strip().startswith("# Copied from "):
            lines[number] = line.split("  # Copied from ")[0]
    return lines


def scope_of(group: list[tuple], scopes_old: list[str], scopes_new: list[str]) -> str:
    """The class and function of the first change in a group of difflib's operations"""
    changes = [operation for operation in group if operation[0] != "equal"]
    _, i, _, j, j_end = changes[0]
    return scopes_new[j] if j < j_end else scopes_old[i]


def one_column(group: list[tuple], old: list[str], new: list[str]) -> list:
    """The lines of a change, with their signs"""
    from rich.text import Text

    lines = []
    for tag, i, i_end, j, j_end in group:
        if tag == "equal":
            lines += [Text(f"  {line}", "dim") for line in new[j:j_end]]
            continue
        lines += [Text(f"- {line}", "red") for line in old[i:i_end]]
        lines += [Text(f"+ {line}", "green") for line in new[j:j_end]]
    return lines


def two_columns(group: list[tuple], old: list[str], new: list[str]):
    """The lines of a change, old and new beside each other"""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(expand=True, padding=(0, 1))
    for _ in ("old", "new"):
        table.add_column(ratio=1, overflow="fold")
    for tag, i, i_end, j, j_end in group:
        left, right = ("dim", "dim") if tag == "equal" else ("red", "green")
        for a, b in itertools.zip_longest(old[i:i_end], new[j:j_end], fillvalue=""):
            table.add_row(Text(a, left), Text(b, right))
    return table


def scopes(lines: list[str]) -> list[str]:
    """For each line the class and function around it, as in `Agent.update`; empty at the top level"""
    names = [""] * (len(lines) + 1)

    def visit(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                name = f"{outer}.{child.name}".strip(".")
                end = child.end_lineno or child.lineno
                for number in range(child.lineno, end + 1):
                    names[number - 1] = name
                visit(child, name)

    # A fork half written has no scopes, nor has one with zeros in it, or brackets without end.
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        visit(ast.parse("\n".join(lines)), "")
    return names
