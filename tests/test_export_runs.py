"""`pmoe export PATH... -o FILE.csv`, and `pmoe plot` of what it writes."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from common import failed, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_on_disk import HEADER, edit, make, put, records_of, seeds, set_arg

from pmoe.files import exports
from pmoe.plots import export, learning, runs

NUMBERS = ("auc.csv", "auc_runs.csv", "auc.md", "auc.tex", "table2.csv", "table2.md", "curves.png")
NUMBERS += ("profile.png",)
HOUR = 3600


def age(path: Path, hours: int) -> None:
    """Has a run's curve written so long ago."""
    then = time.time() - hours * HOUR
    os.utime(path / "eval.csv", (then, then))


def success_csv(shares) -> str:
    head = HEADER.replace("\n", ",success,final_success\n")
    lines = [f"{250000 * i},{i}.5,0.25,10,{share},0.0\n" for i, share in enumerate(shares, 1)]
    return head + "".join(lines)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two configurations of one algorithm on two environments, a fork, a tag, success, and runs that are
    unfinished, have just begun, diverged, say what is odd, or are of another version's text; not to be
    changed"""
    root = tmp_path_factory.mktemp("several")
    folder = root / "runs"
    for env in ("Hopper-v4", "Ant-v4"):
        seeds(folder, "sac", [1.1, 2.3, 1 / 3], k=1, env_id=env)
        seeds(folder, "sac", [1.7, 2.9, 3.3], k=4, env_id=env)
        seeds(folder, "sac", [0.7, 1.9, 2.3], k=4, env_id=env, gamma=0.95, alpha="auto")
    seeds(folder, "ppo", [1, 2], k=4, tag="a tag, of mine", total_timesteps=200_000)
    seeds(folder, "ppo", [1, 2], k=4, tag="another", anneal_lr=True)
    seeds(folder, "dac", [2, 3], k=4)
    seeds(folder, "idea", [2, 3], k=4, file="/there/idea.py")
    for path in seeds(folder, "sac", [1, 2], env_id="Reach-v3", k=4):
        (path / "eval.csv").write_text(success_csv([0, 1 / 3, 0.9, 1]))
    unfinished = make(folder, returns=[1, 2, 3], seed=7, done=False)
    age(unfinished, 5)
    begun = make(folder, returns=[], seed=8, done=False)
    age(begun, 5)
    make(folder, returns=[np.nan, np.inf], seed=9, done=False)  # diverged
    twice = make(folder, "gating-sac", returns=[1, 2, np.nan, 4], steps=[10, 20, 20, 1_000_000])
    edit("eval.csv", "20,nan", "20,5.25")(twice)
    set_arg("source", "0123456789")(make(folder, k=1, seed=4))
    return root


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".pdf"}


@pytest.mark.parametrize(
    "options", ["", "--metric success", "--x time --center iqm --label ppo-k4-another=Mine"]
)
def test_an_export_gives_the_same_tables_as_its_runs(several, pmoe_here, tmp_path, options):
    shutil.copytree(several / "runs", tmp_path / "runs")
    words = ["--auc", "--profile", *options.split()]
    assert pmoe_here("plot", "runs", "--out", "figures", *words).returncode == 0
    result = pmoe_here("export", "runs", "-o", "table.csv")
    assert result.returncode == 0, result.stderr
    assert "33 runs, " in result.stdout
    shutil.rmtree(tmp_path / "runs")
    result = pmoe_here("plot", "table.csv", "--out", "again", *words)
    assert result.returncode == 0, result.stderr
    assert "error" not in result.stderr
    expected = files_of(tmp_path / "figures")
    assert files_of(tmp_path / "again") == expected
    if not options:
        assert set(NUMBERS) <= set(expected)
        assert b"unfinished: seed 7 at" in expected["auc.md"]
        assert b"of 1,000,000 steps, written 5 h ago" in expected["auc.md"]
        assert b"seed8: eval.csv has no rows yet; left out" in expected["auc.md"]


def test_an_export_gives_the_same_runs(several, tmp_path):
    file = tmp_path / "table.csv"
    export.report([several / "runs"], file)
    found, notes = runs.find([several / "runs"])
    again, notes_again = runs.find([file])
    assert notes == notes_again
    assert len(found) == len(again) == 31
    for run, other in zip(found, again, strict=True):
        assert (run.path, run.algo, run.tag, run.source) == (other.path, other.algo, other.tag, other.source)
        assert (run.method, run.setting, run.notes) == (other.method, other.setting, other.notes)
        assert run.wall_time == other.wall_time
        assert np.array_equal(run.steps, other.steps)
        assert np.array_equal(run.returns, other.returns)
        left_out = dict.fromkeys(("run_dir", "resume", "overwrite"), None)
        assert run.args | left_out == other.args | left_out
    assert {run.export for run in again} == {file}


def test_a_row_says_which_run_it_is_of_and_a_file_what_was_run(tmp_path):
    path = make(tmp_path / "runs", returns=[1.25, 2.5], tag="mine", gamma=0.5, target="max")
    set_arg("commit", "abc1234")(path)
    set_arg("versions", {"torch": "2.13.0", "numpy": "2.4.6"})(path)
    edit("eval.csv", ",0.5,", ",0.123456789,")(path)
    export.report([tmp_path / "runs"], tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines == [
        "environment,algo,k,tag,seed,step,return_mean,return_std,episodes",
        "Hopper-v4,sac,4,mine,1,500000,1.25,0.123457,10",
        "Hopper-v4,sac,4,mine,1,1000000,2.5,0.123457,10",
    ]
    (row,) = records_of(tmp_path / "table.runs.csv")
    expected = {"commit": "abc1234", "versions": "torch 2.13.0, numpy 2.4.6", "evaluations": "2"}
    expected |= {"finished": "1000000", "wall_time": "3600.0", "args.gamma": "0.5", "args.target": "max"}
    assert expected.items() <= row.items()
    assert str(path) == row["path"]
    # Where a run was made is nobody's business.
    assert "args.run_dir" not in row
    assert row["file"] == ""


def test_of_a_hundred_runs_it_is_small(tmp_path):
    generator = np.random.default_rng(0)
    for seed in range(1, 101):
        path = make(tmp_path / "runs", returns=generator.normal(1000, 300, 100), seed=seed, gamma=0.9)
        deviation = generator.normal(100, 10)
        edit("eval.csv", ",0.5,", f",{deviation},")(path)
    export.report([tmp_path / "runs"], tmp_path / "table.csv")
    assert (tmp_path / "table.csv").stat().st_size < 700_000
    assert (tmp_path / "table.runs.csv").stat().st_size < 100_000


@pytest.mark.parametrize("path", [".", "link"])
def test_a_run_that_is_named_by_a_link_or_a_dot_keeps_its_name(tmp_path, monkeypatch, path):
    run = make(tmp_path / "runs", seed=3)
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(run if path == "." else tmp_path)
    export.report([Path(path)], tmp_path / "table.csv")
    (found,), _ = runs.find([tmp_path / "table.csv"])
    assert str(found.path) == "Hopper-v4/sac-k4/seed3"


def test_runs_of_a_grid(pmoe_here, tmp_path):
    make(tmp_path / "runs", seed=1)
    make(tmp_path / "runs", seed=3)
    text = 'env = "Hopper-v4"\nseed = [1, 2]\n[plot]\nauc = true\n[[method]]\nalgo = "sac"\n'
    (tmp_path / "grid.toml").write_text(text)
    result = pmoe_here("export", "grid.toml", "-o", "table.csv")
    assert result.returncode == 0, result.stderr
    assert "grid.toml: 1 of 2 runs have begun" in result.stdout
    assert "wrote table.csv, table.runs.csv: 1 run, 4 evaluations" in result.stdout


# Folders


GRID = """env = "Hopper-v4"
[plot]
auc = true
routing = true
from = 3
reference = "gating-sac"
[[method]]
algo = ["sac", "./gone.py"]
"""


@pytest.fixture
def table(tmp_path):
    """A folder results/table that holds an export of two methods and its grid, whose fork is not there"""
    for k in (1, 4):
        seeds(tmp_path / "made", "sac", [1, 2], k=k)
    seeds(tmp_path / "made", "gating-sac", [3])
    folder = tmp_path / "results/table"
    folder.mkdir(parents=True)
    export.report([tmp_path / "made"], folder / "table.csv")
    (folder / "grid.toml").write_text(GRID)
    shutil.rmtree(tmp_path / "made")
    return folder


def test_the_grid_beside_an_export_says_what_is_drawn(pmoe_here, table, tmp_path):
    result = pmoe_here("plot", "results/table", "--out", "results/table")
    assert result.returncode == 0, result.stderr
    assert "results/table/grid.toml: " in result.stdout
    records = records_of(table / "auc.csv")
    assert {record["reference"] for record in records} == {"Gating K=4"}
    # What it wrote there is no export, and does not come between.
    before = (table / "auc.csv").read_bytes()
    assert pmoe_here("plot", "results", "--out", "figures", "--auc").returncode == 0
    assert pmoe_here("plot", "results/table", "--out", "results/table").returncode == 0
    assert (table / "auc.csv").read_bytes() == before


def test_of_two_grids_beside_an_export_none_is_taken(pmoe_here, table, tmp_path):
    (table / "other.toml").write_text(GRID)
    result = pmoe_here("plot", "results/table")
    assert result.returncode == 0, result.stderr
    assert "toml" not in result.stdout
    assert not (tmp_path / "figures/auc.csv").exists()


def test_a_damaged_grid_beside_an_export(pmoe_here, table):
    (table / "grid.toml").write_text("[plot]\nacu = true\n")
    refused(pmoe_here("plot", "results/table"), "results/table/grid.toml:2: [plot] has no 'acu'")


def test_an_export_among_its_runs_is_not_read(tmp_path):
    make(tmp_path / "runs")
    export.report([tmp_path / "runs"], tmp_path / "runs/table.csv")
    (run,), notes = runs.find([tmp_path / "runs"])
    assert run.export is None
    assert notes == []


# What an export lacks


@pytest.mark.parametrize(
    "words, message",
    [
        (
            "plot results/table/table.csv --metric train",
            "--metric train: results/table/table.csv is an export",
        ),
        ("plot results/table/table.csv --modes", "exports have no policies"),
        ("plot results/table --metric success", "eval.csv has no column 'success'"),
        ("eval results/table/table.csv", "results/table/table.csv is an export, which has no policies"),
        ("eval results/table", "results/table/table.csv is an export, which has no policies"),
    ],
)
def test_what_an_export_lacks_is_one_line(pmoe_here, table, words, message):
    result = pmoe_here(*words.split())
    failed(result, message)


def test_of_runs_and_an_export_the_runs_have_policies(table, tmp_path):
    path = make(tmp_path / "more", seed=9)
    found, _ = runs.find([table, tmp_path / "more"])
    shown = []

    def analysis(some, out):
        shown.extend(run.path for run in some)
        return [], []

    _, notes, failures = learning.analyse(found, tmp_path, [analysis])
    assert shown == [path]
    assert failures == []
    assert notes == [f"exports have no policies, whose figures need run directories: {table / 'table.csv'}"]


# What is refused


@pytest.mark.parametrize(
    "words, message",
    [
        (["runs"], "PATH... -o FILE.csv"),
        (["runs", "-o", "table.txt"], "give the name of a .csv file"),
        (["runs", "-o", "table.runs.csv"], "give the name of a .csv file"),
        (["runs", "-o", "none/table.csv"], "there is no folder none"),
        (["none", "-o", "table.csv"], "none: no such folder"),
        (["empty", "-o", "table.csv"], "empty: no runs there"),
        (["damaged", "-o", "table.csv"], "eval.csv is damaged: line 3 does not have 4 columns; left out"),
        (["runs", "other", "-o", "table.csv"], "would both be Hopper-v4/sac-k4/seed1"),
        (["runs", "-o", "there.csv"], "there.csv exists; --overwrite replaces an export"),
        (["runs", "-o", "beside.csv"], "beside.runs.csv exists; --overwrite"),
        (["runs", "-o", "there.csv", "--overwrite"], "there.csv exists, and is no export"),
        (["runs", "-o", "table.csv", "--checkpoint", "best"], "--checkpoint is for a policy"),
    ],
)
def test_what_cannot_be_exported(pmoe_here, tmp_path, words, message):
    make(tmp_path / "runs")
    make(tmp_path / "other")
    edit("eval.csv", "500000,0.5,", "500000,")(make(tmp_path / "damaged"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "beside.runs.csv").write_text("mine")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.csv")}
    refused(pmoe_here("export", *words), message)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.csv")} == before


def test_an_export_is_replaced_and_a_damaged_run_left_out(pmoe_here, tmp_path):
    make(tmp_path / "runs", seed=1)
    export.report([tmp_path / "runs"], tmp_path / "table.csv")
    make(tmp_path / "runs", seed=2)
    put("eval.csv", f"{HEADER}100,abc,1,10\n")(make(tmp_path / "runs", seed=3))
    result = pmoe_here("export", "runs", "-o", "table.csv", "--overwrite")
    assert "note runs/Hopper-v4/sac-k4/seed3: eval.csv is damaged: line 2 has no numbers; left out" in (
        result.stdout
    )
    found, _ = runs.find([tmp_path / "table.csv"])
    assert [run.seed for run in found] == [1, 2]


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("table.csv", "environment,", "env,", "table.csv is no export"),
        ("table.csv", "return_std", "std", "table.csv:1: these are not the columns"),
        ("table.csv", "2,500000,1.0,", "2,500000,", "table.csv:11: a row of 9 cells has 8"),
        ("table.csv", "2,500000,1.0,", "2,5e5x,1.0,", "table.csv:11: step or return_mean is no number"),
        (
            "table.csv",
            "sac,1,,2,500000",
            "sac,2,,2,500000",
            "table.csv:11: table.runs.csv has no Hopper-v4/sac-k2",
        ),
        (
            "table.csv",
            "Hopper-v4,sac,1,,2,500000,1.0,0.5,10\n",
            "",
            "has 3 of the 4 evaluations of Hopper-v4/sac-k1",
        ),
        ("table.csv", "sac,1,,2,500000", 'sac,1,",2,500000', "table.csv:"),
        ("table.csv", "sac,1,,2,500000", "sac,1,\x07,2,500000", "table.csv:11: a control character"),
        ("table.runs.csv", "environment,", "env,", "table.runs.csv:1: these are not the columns"),
        (
            "table.runs.csv",
            "sac,4,,2,",
            "sac,4,,1,",
            "table.runs.csv:6: Hopper-v4/sac-k4/seed1 stands there twice",
        ),
        ("table.runs.csv", "sac,4,,2,", "sac,0,,2,", "table.runs.csv:6: this is no run"),
        ("table.runs.csv", "sac,4,,2,", "sac,4.5,,2,", "table.runs.csv:6: k is no number"),
        ("table.runs.csv", ",3600.0,", ",later,", "table.runs.csv:2: wall_time is no number"),
        ("table.runs.csv", ",3600.0,20", ",3600.0,x", "table.runs.csv:2: written_utc is no time"),
        ("table.runs.csv", None, None, "table.csv is no export, which is two files"),
    ],
)
def test_a_damaged_export_is_one_line(pmoe_here, table, tmp_path, name, old, new, message):
    file = table / name
    if old is None:
        file.unlink()
    else:
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
    refused(pmoe_here("plot", "results/table/table.csv"), message)
    assert not (tmp_path / "figures").exists()


def test_two_exports_of_the_same_run(pmoe_here, table):
    for name in ("table.csv", "table.runs.csv"):
        shutil.copy(table / name, table / f"copy-{name}".replace("copy-table", "copy"))
    (table / "grid.toml").unlink()
    words = "results/table/copy.csv and results/table/table.csv both have Hopper-v4/gating-sac-k4/seed1"
    refused(pmoe_here("plot", "results"), words)
    assert pmoe_here("plot", "results/table/copy.csv", "results/table/copy.csv").returncode == 0


# Whatever the runs are


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
CELLS = st.floats() | st.integers(-(10**20), 10**20)


@st.composite
def records(draw):
    args = draw(st.dictionaries(st.sampled_from(["gamma", "alpha", "hidden", "x y"]), VALUES))
    args |= {
        "env_id": draw(NAMES),
        "tag": draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)),
    }
    args = {name: x for name, x in args.items() if not (type(x) is str and "\0" in x)}
    args.setdefault("tag", "")
    args |= {"k": draw(st.integers(1, 10**12)), "seed": draw(st.integers(0, 10**12))}
    args["total_timesteps"] = draw(st.integers(0, 10**12))
    config = {"algo": draw(NAMES), "args": args, "source": draw(NAMES), "file": draw(NAMES)}
    columns = [*exports.CURVE, *exports.SUCCESS] if draw(st.booleans()) else list(exports.CURVE)
    rows = []
    for _ in range(draw(st.integers(0, 3))):
        cells = [repr(draw(CELLS)) for _ in columns]
        rows.append(dict(zip(columns, cells)))
    finished = draw(st.none() | st.tuples(st.integers(0, 10**12), st.floats(0, 1e11)))
    written = float(draw(st.integers(0, 2**32)))
    return exports.Record(Path("runs/x/y/seed1"), draw(NAMES), config, rows, finished, written)


def written(folder: Path, some: list[exports.Record]) -> Path:
    file = folder / "table.csv"
    texts = exports.write(some)
    for each, text in zip((file, exports.runs_file(file)), texts):
        each.write_text(text, encoding="utf-8", newline="")
    return file


@settings(deadline=None)
@given(st.lists(records(), min_size=1, max_size=3, unique_by=lambda record: record.name))
def test_what_is_read_is_what_was_written(tmp_path_factory, some):
    file = written(tmp_path_factory.getbasetemp(), some)
    for record, again in zip(some, exports.read(file), strict=True):
        assert again.config["args"] == record.config["args"]
        assert (
            again.config.items() >= {"algo": record.config["algo"], "source": record.config["source"]}.items()
        )
        assert (again.key, again.path) == (record.key, record.path)
        assert (again.evaluations, again.finished) == (record.evaluations, record.finished)
        assert again.written == record.written


@settings(deadline=None)
@given(records(), st.booleans(), st.integers(0, 2000), st.integers(0, 20), st.binary(max_size=8))
def test_whatever_is_damaged_is_one_line(tmp_path_factory, record, first, at, length, content):
    file = written(tmp_path_factory.getbasetemp(), [record])
    damaged = file if first else exports.runs_file(file)
    before = damaged.read_bytes()
    at %= len(before)
    damaged.write_bytes(before[:at] + content + before[at + length :])
    try:
        found = exports.read(file)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(found) <= 1
