"""What tests/fuzz.py makes up: command lines, TOML files, and run directories that are damaged.

An Example is a command line and the files that it finds in its folder. What is valid in it is small, so that
it ends within seconds. Numbers are small or absurd: what lies between trains for hours, and rightly so.
"""

import io
import json
import os
import signal
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import typer
from common import ALGORITHMS, MODULES, flags, is_on_policy
from hypothesis import strategies as st

from pmoe import cli

ENV = "Pendulum-v1,max_episode_steps=20"
TOTAL = 60
QUICK = {
    "env_id": ENV,
    "total_timesteps": TOTAL,
    "eval_every": 30,
    "eval_episodes": 1,
    "checkpoint_every": 30,
}
OFF_POLICY = {"learning_starts": 20, "random_steps": 20, "batch_size": 8}
ON_POLICY = {"num_steps": 20, "minibatch_size": 10, "update_epochs": 1}

WHOLE = ["0", "-1", "1", "2", "3", "2147483648", "1000000000000", "10000000000000", "9" * 30, "1_0", " 1"]
WHOLE += ["٣"]
BROKEN = ["0.5", "1e-300", "1e3", "1e308", "-1e308", "nan", "inf", "-inf"]
NUMBERS = [*WHOLE, *BROKEN, "0x10", "+1"]
FEW_STEPS = ["0", "-1", "1", "7", "nan", "inf", "1e308", "10000000000000", "1_0", "", "x"]  # or none
TEXTS = ["", " ", "-", "--", "--help", ".", "..", "a/b", "../x", "../../../../../../x", "/", "x" * 300]
TEXTS += ["$", "$HOME", "a$b$c", "$_$", "a$\\x$", "%", "_", "a&b", "<i>", "a|b", "{x}", "#", "\\", "'", '"']
TEXTS += ["`id`", "\n", "a\nb", "\r", "\t", "\x01", "\x1b[31m", "\x7f", "é", "\u202e", "\udc80", "😀"]
TEXTS += ["nan", "None", "True", "auto", "sac"]
PATHS = ["", ".", "runs", "a/b/c", "grid.toml", "fifo", "broken.py", "empty.py", "runs\n", "$HOME"]
PATHS += ["/dev/null", "/dev/null/x", "/dev/zero", "/dev/full", "/dev/stdin", "/proc/self", "/proc/self/mem"]
ENVS = [ENV, "Pendulum-v1", "Pendulum-v0", "CartPole-v1", "TargetReaching-v0", "MountainCarContinuous-v0"]
ENVS += ["Blackjack-v1", "this:Foo-v0", "sys:", ":", "a.b:c", "empty:X-v0", "exits:X-v0", "broken:X-v0"]
ENV_VALUES = [*NUMBERS, "'x'", "'human'", "'rgb_array'", "[]", "{}", "[1,2]", "'", "(", "None", "True"]
ENV_OPTIONS = ["g", "render_mode", "obstacles", "fixed_layout", "id", "max_episode_steps"]
LIMITS = ["-1", "0", "1", "20", "0.5", "'x'", "None"]  # an evaluation rightly lasts as long as they say
FILES = {  # beside each example's own
    "empty.py": b"",
    "exits.py": b"raise SystemExit(3)\n",
    "broken.py": b"def broken(:\n",
    "grid.toml": b'env = "Pendulum-v1"\ntotal_timesteps = 60\n[[method]]\nalgo = "sac"\n',
}


FINISHED: dict[str, dict[str, bytes]] = {}  # by algorithm the files of a run, which fuzz.py trains


@dataclass
class Example:
    words: list[str]  # after `pmoe`
    files: dict[str, bytes] = field(default_factory=dict, repr=False)  # by their names in the folder
    notes: list[str] = field(default_factory=list)  # what is odd in them
    stop: tuple[int, float] | None = None  # a signal that ends it, after so many seconds


# Words


def word(raw: bytes) -> str:
    """As a shell hands it over: without NUL, and what is no UTF-8 as surrogates"""
    return os.fsdecode(raw.replace(b"\0", b""))


def stays_inside(path: str) -> bool:
    """Whether a path lies in the folder: to write elsewhere would be no more than what was asked for."""
    return ".." not in path and not path.startswith("/")


numbers = st.sampled_from(NUMBERS)
written = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
texts = st.sampled_from(TEXTS) | st.sampled_from(TEXTS) | written | st.binary(max_size=12).map(word)
words = numbers | texts
paths = st.sampled_from(PATHS) | texts.filter(stays_inside)


def one_in(n: int) -> st.SearchStrategy[bool]:
    return st.integers(1, n).map(lambda drawn: drawn == n)


@st.composite
def envs(draw) -> str:
    """Most often one that there is, with an option that it has"""
    name = draw(st.sampled_from(["Pendulum-v1", "TargetReaching-v0"]) | st.sampled_from(ENVS))
    if draw(one_in(8)):
        name = draw(texts)
    options = []
    for _ in range(draw(st.integers(0, 2))):
        key = draw(texts if draw(one_in(8)) else st.sampled_from(ENV_OPTIONS))
        known = LIMITS if key == "max_episode_steps" else ENV_VALUES
        value = draw(texts if draw(one_in(8)) else st.sampled_from(known))
        options.append(f",{key}={value}")
    return name + "".join(options)


@st.composite
def option(draw, name: str, value: str) -> list[str]:
    """--name=value, or in two words"""
    return draw(st.sampled_from([[f"--{name}={value}"], [f"--{name}", value]]))


def quick(algo: str) -> dict:
    own = ON_POLICY if is_on_policy(algo) else OFF_POLICY
    return {**QUICK, **own}


def value_of(option) -> st.SearchStrategy[str]:
    """For a field of Args: most often one of its type"""
    special = {
        "total_timesteps": st.sampled_from(FEW_STEPS),
        "env_id": envs(),
        "run_dir": paths,
        "tag": texts,
    }
    if option.name in special:
        return special[option.name]
    fits = {int: WHOLE, float: [*WHOLE, *BROKEN]}.get(option.type)
    choices = [str(choice) for choice in typing.get_args(option.type)]
    return st.sampled_from((fits or choices) * 3 + NUMBERS)


@st.composite
def stops(draw) -> tuple[int, float] | None:
    """Now and then Ctrl-C and the like"""
    if not draw(one_in(8)):
        return None
    number = draw(st.sampled_from([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
    return number, draw(st.sampled_from([0.02, 0.05, 0.1, 0.2, 0.4, 0.6]))


@st.composite
def runs(draw) -> Example:
    """`pmoe run`, a quick one, with up to three odd options and, at times, an odd word"""
    algo = draw(st.sampled_from(sorted(ALGORITHMS)))
    options = [
        each for each in fields(MODULES[algo].Args) if each.name != "compile" and each.type is not bool
    ]
    favoured = [each for each in options if each.name in ("env_id", "tag", "run_dir")]
    asked = flags(algo, **quick(algo))
    for each in draw(st.lists(st.sampled_from(options + 3 * favoured), min_size=1, max_size=3)):
        value = draw(value_of(each))
        asked += draw(option(each.name.replace("_", "-"), value))
    switches = ["--resume", "--overwrite", "--no-keep-replay", "--track", "--anneal-lr", "--no-detach-router"]
    if draw(one_in(4)):
        asked.append(draw(st.sampled_from(switches)))
    name = algo
    if draw(one_in(20)):
        name = draw(st.sampled_from(["./broken.py", "./exits.py", "empty.py", "./missing.py", "sca"]))
    if draw(one_in(20)):
        asked.append(draw(texts))
    return Example(["run", name, *asked], stop=draw(stops()))


COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
DEAR = {"tsne", "estimators", "slurm"}  # minutes, or another program


@st.composite
def commands(draw) -> Example:
    """Any command but `pmoe run`, with odd options, beside a run"""
    name = draw(st.sampled_from(sorted(set(COMMANDS) - {"run"})))
    found = [name]
    for parameter in COMMANDS[name].params:
        is_argument = parameter.param_type_name == "argument"
        is_left_out = draw(one_in(10)) if is_argument else not draw(one_in(5))
        if parameter.name in DEAR or is_left_out:
            continue
        is_path = parameter.name in ("out", "video", "run_dir", "paths", "run_dirs", "path", "file")
        value = draw(paths if is_path else words)
        if is_argument:
            found.append(draw(st.sampled_from(["runs", "grid.toml", "sac", value])))
        elif getattr(parameter, "is_flag", False):
            found.append(parameter.opts[0])
        else:
            found += draw(option(parameter.opts[0].removeprefix("--"), value))
    if name == "grid":
        found.append("--dry-run")
    if name == "eval":
        found += ["--episodes", "1"]
    files = FINISHED[draw(st.sampled_from(sorted(FINISHED)))]
    return Example(found, files, stop=draw(stops()))


# TOML files

toml_scalars = (
    st.booleans()
    | st.sampled_from([0, -1, 1, 2, 2**31, 10**12, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf")])
    | st.sampled_from(TEXTS)
    | st.sampled_from(["sac", "ppo", "auto", "Pendulum-v1", ENV, "max"])
)
toml_values = toml_scalars | st.lists(toml_scalars, max_size=3)


def toml_of(value) -> str:
    """A value as TOML has it"""
    if isinstance(value, list):
        inside = ", ".join(map(toml_of, value))
        return f"[{inside}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def table_of(values: dict) -> str:
    return "".join(f"{name} = {toml_of(value)}\n" for name, value in values.items())


@st.composite
def odd_values(draw, names: list[str]) -> dict:
    """Some of the names, each with a value that may not fit"""
    chosen = draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    odd = {}
    for name in chosen:
        value = draw(toml_values)
        if name != "run_dir" or stays_inside(str(value)):
            odd[name] = value
    return odd


@st.composite
def grid_texts(draw) -> bytes:
    """A grid's file, in which some values do not fit and, at times, some bytes are others"""
    algo = draw(st.sampled_from(sorted(ALGORITHMS)))
    names = ["env", "seeds_per_process", *[each.name for each in fields(MODULES[algo].Args)]]
    figures = ["auc", "routing", "reference", "tsne", "x"]
    limits = ["partition", "time", "gpus", "memory", "x"]
    shared = {"env": ENV, "seed": [1, 2], "total_timesteps": TOTAL} | draw(odd_values(names))
    text = table_of(shared)
    for name, keys in (("plot", figures), ("slurm", limits)):
        if draw(st.booleans()):
            text += f"[{name}]\n" + table_of(draw(odd_values(keys)))
    for _ in range(draw(st.integers(1, 2))):
        method = {"algo": algo} | draw(odd_values(["algo", *names]))
        text += "[[method]]\n" + table_of(method)
    if draw(one_in(10)):
        heavy = draw(st.sampled_from(["[" * 3000, "{a=" * 3000, "9" * 5000]))
        text = text.replace("= ", f"= {heavy}", 1)
    content = text.encode("utf-8", "surrogateescape")
    return draw(st.just(content) | damaged_bytes(content))


@st.composite
def grids(draw) -> Example:
    """A command that reads a grid's file"""
    content = draw(grid_texts())
    name = draw(st.sampled_from(["grid.toml"] * 6 + ["a b.toml", "$x.toml", "a\nb.toml", "\udc80.toml", "g"]))
    asked = draw(st.sampled_from([["grid", "--dry-run"], ["grid", "--print-sbatch"], ["status"], ["plot"]]))
    more = []
    if draw(one_in(5)):
        more = draw(option("run-dir", draw(paths)))
    if "--print-sbatch" in asked and draw(st.booleans()):
        more += draw(option("partition", draw(words)))
    return Example([*asked, name, *more], {name: content}, [repr(content)])


# Damage


@st.composite
def damaged_bytes(draw, content: bytes) -> bytes:
    """A file's content after an accident"""
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    before = content[:place]
    after = content[place:]
    odd = draw(
        st.sampled_from(
            [
                b"\0",
                b"\n",
                b'"',
                b",",
                b"\xff",
                b"\xef\xbb\xbf",
                b"[" * 3000,
                b"{a=" * 3000,
                b"\r",
                b"-",
                b"9" * 5000,
            ]
        )
    )
    flipped = bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) if content else b""
    return draw(
        st.sampled_from(
            [before, before + flipped + after[1:], before + odd + after, odd + content, b"", after * 2]
        )
    )


REMOVED = "(removed)"


def places(tree, path: tuple = ()) -> Iterator[tuple]:
    """Where something stands in dicts and lists"""
    inner: typing.Any = ()
    if isinstance(tree, dict):
        inner = tree.items()
    elif isinstance(tree, list):
        inner = enumerate(tree)
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(tree, path: tuple, value):
    """The same tree with another value in one place, or without one"""
    if not path:
        return value
    first, *rest = path
    copied = tree.copy()
    if value is REMOVED and not rest:
        del copied[first]
    else:
        copied[first] = changed(tree[first], tuple(rest), value)
    return copied


json_scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.5, 1e308, float("nan"), float("inf")])
    | st.sampled_from([*TEXTS, "\ud800", "a\0b", "/dev/zero", "/dev/null/x.py"])
)
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def damaged_json(draw, content: bytes) -> tuple[bytes, str]:
    """With another value in one place; or any JSON; or nested too deep for a parser; or after an accident"""
    way = draw(st.sampled_from(["place", "place", "place", "any", "deep", "bytes"]))
    tree = json.loads(content)
    if way == "bytes":
        return draw(damaged_bytes(content)), way
    if way == "deep":
        return b'{"args":' + b"[" * 100_000, way
    value = draw(json_values)
    if way == "any":
        return json.dumps(value).encode(), repr(value)
    path = draw(st.sampled_from(list(places(tree))))
    value = draw(st.sampled_from([value, REMOVED]))
    return json.dumps(changed(tree, path, value)).encode(), f"{path} = {value!r}"


tensors = st.sampled_from(
    [
        torch.zeros(0),
        torch.zeros(()),
        torch.zeros(3),
        torch.zeros(2, 2, dtype=torch.int64),
        torch.full((1, 256), float("nan")),
        torch.zeros(16, dtype=torch.uint8),
        torch.zeros(2, 3, dtype=torch.complex64),
    ]
)


@st.composite
def damaged_checkpoint(draw, content: bytes) -> tuple[bytes, str]:
    """With another value in one place, or a file's name that leads elsewhere; or after an accident"""
    way = draw(st.sampled_from(["place", "place", "place", "csv", "shape", "any", "bytes"]))
    tree = torch.load(io.BytesIO(content), weights_only=True)
    if way == "bytes":
        return draw(damaged_bytes(content)), way
    # best.pt has none.
    if way == "csv" and "csv" in tree:
        path = ("csv",)
        name = draw(st.sampled_from(["../../../../../x", "/dev/full", "a\0b", "config", "../x", 3]))
        value = tree["csv"] | {name: "step\n"}
    elif way == "any":
        path = ()
        value = draw(json_values)
    else:
        # One weight is like another; all places together are mostly weights.
        parts = {str(path[0]): [] for path in places(tree)}
        for path in places(tree):
            parts[str(path[0])].append(path)
        part = draw(st.sampled_from(sorted(parts)))
        path = draw(st.sampled_from(parts[part]))
        value = draw(tensors) if way == "shape" else draw(json_values | st.just(REMOVED))
    saved = io.BytesIO()
    torch.save(changed(tree, path, value), saved)
    return saved.getvalue(), f"{path} = {value!r}"


@st.composite
def damaged_table(draw, content: bytes) -> tuple[bytes, str]:
    """A CSV file with another cell; or after an accident"""
    lines = content.decode().splitlines()
    row = draw(st.integers(0, len(lines) - 1))
    cells = lines[row].split(",")
    column = draw(st.integers(0, len(cells) - 1))
    cells[column] = draw(st.sampled_from([*NUMBERS, *TEXTS]))
    lines[row] = ",".join(cells)
    text = "\n".join(lines) + "\n"
    one_cell = text.encode("utf-8", "surrogateescape")
    content = draw(st.just(one_cell) | damaged_bytes(content))
    return content, repr(content)


@st.composite
def damaged_any(draw, content: bytes) -> tuple[bytes, str]:
    return draw(damaged_bytes(content)), "bytes"


DAMAGES = {".json": damaged_json, ".pt": damaged_checkpoint, ".csv": damaged_table}
CLAIM = json.dumps({"machine": "x", "pid": 1, "token": "x"}).encode()


def read_folder(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their names in it"""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def ways_on(algo: str, run: str) -> list[list[str]]:
    """Command lines that read a run: most often those that are quick"""
    again = flags(algo, **quick(algo))
    longer = flags(algo, **{**quick(algo), "total_timesteps": TOTAL + 40})
    bounds = ["--compile=off", "--total-timesteps=40", "--eval-episodes=1", "--run-dir=again"]
    return [
        ["status"],
        ["status", "runs", "--json"],
        ["status", "grid.toml"],
        ["eval", run, "--episodes", "1"],
        ["eval", run, "--episodes", "1", "--checkpoint", "best"],
        ["eval", "runs", "--episodes", "1"],
        ["run", algo, *again, "--resume"],
        ["run", algo, *longer, "--resume"],
        ["run", algo, *longer, "--resume"],
        ["run", "--config", f"{run}/config.json", *bounds],
        ["grid", "grid.toml", "--dry-run"],
        ["plot", "runs", "--auc"],
        ["plot", "table.csv", "--auc"],
        ["export", "runs", "-o", "again.csv"],
        ["export", "runs", "-o", "table.csv", "--overwrite"],
    ]


@st.composite
def odd_names(draw) -> Example:
    """Two runs, of which one has a tag, or an environment, whose name is odd in figures and tables"""
    algo = draw(st.sampled_from(sorted(FINISHED)))
    files = FINISHED[algo]
    (config,) = [name for name in files if name.endswith("config.json")]
    tree = json.loads(files[config])
    name = draw(st.sampled_from(["tag", "env_id"]))
    text = draw(texts)
    tree["args"][name] = text
    copied = {}
    for file, content in files.items():
        copied[file.replace("/seed1", "-2/seed1")] = content
    copied[config.replace("/seed1", "-2/seed1")] = json.dumps(tree).encode()
    commands = [["plot", "runs", "--auc"], ["plot", "runs", "--x=time"], ["eval", "runs"]]
    commands.append(["export", "runs", "-o", "again.csv"])
    command = draw(st.sampled_from(commands))
    return Example(command, files | copied, [f"{name} = {text!r}"])


@st.composite
def damages(draw) -> Example:
    """A command that reads a finished run of which one file or two are damaged"""
    algo = draw(st.sampled_from(sorted(FINISHED)))
    files = dict(FINISHED[algo])
    (config,) = [name for name in files if name.endswith("config.json")]
    run = config.removesuffix("/config.json")
    options = quick(algo) | {"env": ENV, "k": 2, "compile": "off", "seed": 1}
    del options["env_id"]
    files["grid.toml"] = (table_of(options) + f'[[method]]\nalgo = "{algo}"\n').encode()
    files[f"{run}.claim"] = CLAIM
    notes = []
    names = [name for name in files if "tfevents" not in name and name != "grid.toml"]
    touched = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    for name in touched:
        damage = DAMAGES.get(Path(name).suffix, damaged_any)
        if name.endswith(".claim"):
            damage = damaged_json
        if draw(one_in(8)):
            del files[name]
            notes.append(f"{name}: removed")
            continue
        files[name], note = draw(damage(files[name]))
        notes.append(f"{name}: {note}")
    if f"{run}.claim" not in touched:
        del files[f"{run}.claim"]
    return Example(draw(st.sampled_from(ways_on(algo, run))), files, notes, draw(stops()))
