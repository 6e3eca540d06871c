"""The paper's tables: its layout, its printed numbers below ours"""

from pathlib import Path

import pytest
from common import refused
from runs_on_disk import UNIT, make, records_of, seeds, words_of

from pmoe.plots import paper, runs

ALGO = {name: algo for algo, name in runs.NAMES.items()} | {"SAC": "sac"}


def printed(item: str) -> list[dict]:
    """The rows of one of the paper's tables"""
    return [row for row in records_of(paper.PRINTED) if row["item"] == item]


def paper_k(row: dict) -> int:
    """The K of a printed value"""
    if row["method"] == "SAC":
        return 1
    if row["setting"]:
        return int(row["setting"].removeprefix("k="))
    return paper.PRINTED_K.get((row["method"], row["env"]), 4)


def paper_runs(root, item, version="v4"):
    """Of every cell of a table a run whose area is the printed number, at the paper's K"""
    for row in printed(item):
        area = float(row["value"])
        make(root, ALGO[row["method"]], area * UNIT, k=paper_k(row), env_id=f"{row['env']}-{version}")


def printed_tables(root, always=False) -> list[Path]:
    found, _ = runs.find([root])
    files, _ = paper.report(found, root, "mean", "eval", always)
    return files


def markdown_of(file) -> tuple[str, list[list[str]]]:
    """The title and the rows of a file's table, without the line below its head"""
    title, *lines = file.read_text().splitlines()
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line[1:-1].split("|")])
    head, _, *others = rows
    return title, [head, *others]


@pytest.mark.parametrize("item", paper.TABLES)
def test_the_papers_tables(tmp_path, item):
    paper_runs(tmp_path, item)
    files = printed_tables(tmp_path)
    assert {file.name for file in files} == {f"{item}.{suffix}" for suffix in ("csv", "md", "tex")}
    rows = {(row["env"], row["method"], row["setting"]): row for row in printed(item)}
    records = records_of(tmp_path / f"{item}.csv")
    assert len(records) == len(rows)
    for record in records:
        name, _, k = record["method"].partition(" K=")
        setting = f"k={k}" if item == "table4" else ""
        row = rows.pop((record["environment"].removesuffix("-v4"), name, setting))
        assert float(record["printed"]) == float(row["value"])
        assert float(record["percent"]) == pytest.approx(float(row["value"]))
        if name.startswith("PMOE"):
            assert record["printed_k"] == k

    _, (head, *lines) = markdown_of(tmp_path / f"{item}.md")
    assert len(head) == 7
    for ours, theirs in zip(lines[::2], lines[1::2], strict=True):
        assert theirs[0] == "printed"
        # No "(K=...)": it is the paper's K.
        assert list(map(float, ours[1:])) == list(map(float, theirs[1:]))
    text = (tmp_path / f"{item}.tex").read_text()
    assert text.count(r"\quad printed &") == len(lines) // 2


def test_the_golden_table_2(tmp_path, capsys):
    for env, k in (("Hopper-v4", 2), ("Ant-v4", 4)):
        seeds(tmp_path, "sac", [200] * 3, k=1, env_id=env)
        seeds(tmp_path, "sac", [300] * 3, k=k, env_id=env)
    seeds(tmp_path, "gating-sac", [100] * 3, env_id="Ant-v4")
    seeds(tmp_path, "gumbel-sac", [100] * 3, env_id="Ant-v4")  # the paper has none
    printed_tables(tmp_path)
    title, rows = markdown_of(tmp_path / "table2.md")
    assert title == "Table 2: area under the evaluation curve in percent of SAC's"
    assert rows == [  # methods and environments in the paper's order
        ["", "Ant-v4", "Hopper-v4"],
        ["SAC", "100.0", "100.0"],
        ["printed", "100", "100"],
        ["Gating K=4", "50.0 (50.0, 50.0)", ""],
        ["printed", "89.3", ""],
        ["PMOE-SAC K=4/2", "150.0 (150.0, 150.0)", "150.0 (150.0, 150.0)"],
        ["printed", "113.4", "115.4 (K=4)"],
    ]
    assert "PMOE-SAC K=4/2 150.0 (150.0, 150.0)" in words_of(capsys.readouterr().out)


def test_the_golden_table_4(tmp_path):
    for k, area in ((2, 200), (4, 300), (10, 100), (6, 500)):  # the paper has no K = 6
        seeds(tmp_path, "sac", [area] * 3, k=k, env_id="HumanoidStandup-v4")
        seeds(tmp_path, "sac", [area] * 3, k=k, env_id="Ant-v4")  # nor another environment
    printed_tables(tmp_path)
    _, rows = markdown_of(tmp_path / "table4.md")
    assert rows == [
        ["", "K=2", "K=4", "K=10"],
        ["HumanoidStandup-v4", "100.0", "150.0 (150.0, 150.0)", "50.0 (50.0, 50.0)"],
        ["printed", "100", "107.1", "111.7"],
    ]


def test_runs_that_are_not_in_a_table_do_not_shorten_its_comparison(tmp_path):
    seeds(tmp_path, "sac", [200] * 3, k=1)
    seeds(tmp_path, "sac", [300] * 3, k=4, total_timesteps=2_000_000)
    make(tmp_path, "gumbel-sac", steps=[10, 20, 30, 40])  # the paper has none
    found, _ = runs.find([tmp_path])
    _, (note,) = paper.report(found, tmp_path, "mean", "eval")
    assert note.startswith("table 2: Hopper-v4, 1,000,000 steps: areas up to step 1,000,000, where ")
    assert note.endswith("3 runs go further")
    text = (tmp_path / "table2.md").read_text()
    assert "Compared: Hopper-v4, 1,000,000 steps from 500,000 to 1,000,000, 3 runs or more" in text


@pytest.fixture
def short(tmp_path):
    """Runs on Hopper that are short, and on Ant that are as long as the paper's"""
    for env, steps in (("Hopper-v4", 50_000), ("Ant-v4", 1_000_000)):
        for k, area in ((1, 200), (4, 300)):
            seeds(tmp_path / "runs", "sac", [area] * 3, k=k, env_id=env, total_timesteps=steps)
    return tmp_path / "runs"


def test_no_printed_numbers_below_runs_of_another_length(pmoe_here, short, tmp_path):
    result = pmoe_here("plot", short, "--auc")
    assert result.returncode == 0
    _, rows = markdown_of(tmp_path / "figures/table2.md")
    assert rows[1:] == [
        ["SAC", "100.0", "100.0"],
        ["printed", "100", ""],
        ["PMOE-SAC K=4", "150.0 (150.0, 150.0)", "150.0 (150.0, 150.0)"],
        ["printed", "113.4", ""],
    ]
    note = "table 2: no printed numbers below shorter or longer runs: Hopper-v4 (50,000); "
    assert note + "the paper's runs are 1,000,000 steps long; --printed shows its numbers" in result.stdout


def test_of_short_runs_alone_there_is_no_printed_row(short):
    printed_tables(short / "Hopper-v4")
    _, rows = markdown_of(short / "Hopper-v4/table2.md")
    assert [row[0] for row in rows] == ["", "SAC", "PMOE-SAC K=4"]
    assert "Printed" not in (short / "Hopper-v4/table2.md").read_text()


def test_printed_numbers_below_short_runs_where_they_are_asked_for(pmoe_here, short, tmp_path):
    """With both lengths below the table"""
    result = pmoe_here("plot", short, "--auc", "--printed")
    assert result.returncode == 0
    _, rows = markdown_of(tmp_path / "figures/table2.md")
    assert rows[4] == ["printed", "113.4", "115.4"]
    text = (tmp_path / "figures/table2.md").read_text()
    assert "Compared: Ant-v4, 1,000,000 steps from" in text
    assert "Hopper-v4, 50,000 steps from" in text
    assert "the paper's settings, 1,000,000 steps" in text
    refused(pmoe_here("plot", short, "--printed"), "--printed is for --auc")
    refused(pmoe_here("plot", short, "--auc", "--states", 500), "--states is for --tsne")
    refused(pmoe_here("plot", short, "--auc", "--episodes", 5), "--episodes is for --routing, --primitives")


def test_a_table_of_methods_that_have_other_names(tmp_path):
    seeds(tmp_path, "gating-sac", [300] * 3)
    seeds(tmp_path, "sac", [200] * 3, k=1)
    found, _ = runs.find([tmp_path])
    runs.relabel(found, ["sac-k1=Plain", "gating-sac-k4=Theirs"])
    paper.report(found, tmp_path, "mean", "eval")
    _, rows = markdown_of(tmp_path / "table2.md")
    assert [row[0] for row in rows] == ["", "Plain", "printed", "Theirs", "printed"]


@pytest.mark.parametrize("item", paper.TABLES)
def test_the_papers_numbers_stand_beside_no_other_version(tmp_path, item):
    paper_runs(tmp_path, item, "v5")
    assert printed_tables(tmp_path) == []


def test_no_table_of_the_paper_without_its_reference(tmp_path):
    for algo, k in (("sac", 4), ("gating-sac", 4), ("ppo", 4), ("mcp-ppo", 4)):
        seeds(tmp_path, algo, [1, 2], k=k)
    assert printed_tables(tmp_path) == []
