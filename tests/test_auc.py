"""Areas under curves: what is compared with what, figures by hand, and the tables of them."""

import numpy as np
import pytest
from common import MODULES
from runs_on_disk import HEADER, compared, make, records_of, seeds, words_of

from pmoe.plots import auc, runs, stats, tables


def report(root, reference=None, center="mean") -> tuple[list[dict], list[str]]:
    """The records of auc.csv, and all notes"""
    found, _ = runs.find([root])
    tasks, notes = auc.compare(found, reference, center)
    _, more = auc.report(tasks, root, center, "eval")
    return records_of(root / "auc.csv"), notes + more


def pooled(root, reference=None) -> tuple[list[dict], list[str]]:
    """The records of several environments together, and all notes"""
    records, notes = report(root, reference)
    return [record for record in records if "," in record["environment"]], notes


def numbers(record: dict, *names: str) -> list[float]:
    return [float(record[name]) for name in names]


# What is compared


def test_areas_are_taken_where_all_compared_runs_are(tmp_path):
    make(tmp_path, returns=[0, 100, 200, 300], k=1)
    make(tmp_path, returns=[100, 150], steps=[400_000, 600_000], k=1, seed=2, done=False)
    make(tmp_path, "ppo", returns=[1, 2], steps=[10, 20])  # of another family
    (ppo, sac), notes = compared(tmp_path)
    assert (sac.first, sac.last) == (400_000, 600_000)
    assert (ppo.first, ppo.last) == (10, 20)
    np.testing.assert_allclose(sac.areas("SAC"), [100, 125])  # from 60 to 140, and from 100 to 150
    np.testing.assert_allclose(sac.finals("SAC", "eval"), [140, 150])
    (note,) = [note for note in notes if "areas up to" in note]
    assert "Hopper-v4, 1,000,000 steps, SAC family: areas up to step 600,000" in note
    assert "seed2 ends; 1 runs go further" in note


def test_the_final_return_of_training_is_that_of_the_last_tenth(tmp_path):
    """A single training episode would be luck."""
    make(tmp_path, k=1, steps=[0, 900, 920, 1000], returns=[-1000, -1000, 0, 0], total_timesteps=1000)
    found, _ = runs.find([tmp_path], "train")
    (task,), _ = auc.compare(found)
    expected = (20 * 500 + 80 * 1000) / 100
    assert task.finals("SAC", "train") == pytest.approx([expected])
    assert task.finals("SAC", "eval") == [1000]


@pytest.mark.parametrize("steps", [[10], [10, 20]])
def test_a_single_step_in_common_is_no_area(tmp_path, steps):
    make(tmp_path, returns=[7] * len(steps), steps=steps, k=1)
    make(tmp_path, returns=[7], steps=[10])
    tasks, notes = compared(tmp_path)
    assert tasks == []
    assert "no areas" in notes[0]


def test_runs_without_a_step_in_common(tmp_path):
    make(tmp_path, returns=[1, 2], steps=[10, 20], k=1, done=False)
    path = make(tmp_path, returns=[1, 2], steps=[30, 40], k=2)
    tasks, (note,) = compared(tmp_path)
    assert tasks == []
    assert "Hopper-v4" in note
    assert "sac-k1/seed1 ends at step 20" in note
    (path / "eval.csv").write_text(HEADER + "15,5,0,1\n20,7,0,1\n")
    (task,), _ = compared(tmp_path)
    assert task.areas("PMOE-SAC K=2") == [6]


def test_seeds_of_different_length_are_compared_up_to_what_all_reached(tmp_path):
    """Runs of 1,000 and 2,000 steps whose returns are K times their steps"""
    for k in (1, 4):
        make(tmp_path, k=k, seed=1, returns=[250 * k, 500 * k, 750 * k, 1000 * k], total_timesteps=1000)
        longer = {"steps": [500, 1000, 2000], "total_timesteps": 2000}
        make(tmp_path, k=k, seed=2, returns=[500 * k, 1000 * k, 2000 * k], **longer)
    (task,), (note,) = compared(tmp_path)
    assert (task.first, task.last, task.budget) == (500, 1000, 1000)
    assert task.areas("SAC").tolist() == [750, 750]
    assert task.areas("PMOE-SAC K=4").tolist() == [3000, 3000]
    assert note.startswith("Hopper-v4, 1,000 steps, SAC family: areas up to step 1,000, where ")
    assert note.endswith("seed1 ends; 2 runs go further")


def test_of_training_runs_of_different_length_the_note_is_not_left_out(tmp_path):
    make(tmp_path, k=1, total_timesteps=1000)
    make(tmp_path, k=4, total_timesteps=2000)
    make(tmp_path, k=4, seed=2, total_timesteps=1000)
    found, _ = runs.find([tmp_path], "train")
    _, notes = auc.compare(found)
    assert len(notes) == 1
    assert "areas up to step 1,000, where " in notes[0]


def test_training_episodes_end_where_they_end(tmp_path):
    make(tmp_path, k=1, steps=[1, 995], returns=[1, 2], total_timesteps=1000)
    make(tmp_path, k=4, steps=[1, 998], returns=[1, 2], total_timesteps=1000)
    found, _ = runs.find([tmp_path], "train")
    (task,), notes = auc.compare(found)
    assert task.last == 995
    assert notes == []


def test_seeds_evaluated_at_different_intervals_are_one_method_with_percents(tmp_path):
    """SAC every 100 and every 250 steps, of 1,000; the curves are x and 3x, and PMOE's twice the first."""
    often = np.arange(100, 1001, 100)
    seldom = np.arange(250, 1001, 250)
    lengths = {"total_timesteps": 1000, "k": 1}
    make(tmp_path, seed=1, steps=often, returns=often, eval_every=100, **lengths)
    make(tmp_path, seed=2, steps=seldom, returns=3 * seldom, eval_every=250, eval_episodes=3, **lengths)
    make(tmp_path, steps=seldom, returns=2 * seldom, total_timesteps=1000)
    (task,), notes = compared(tmp_path)
    assert notes == []
    assert {method: len(group) for method, group in task.methods.items()} == {"SAC": 2, "PMOE-SAC K=4": 1}
    assert (task.first, task.last) == (250, 1000)
    np.testing.assert_allclose(task.areas("SAC"), [625, 3 * 625])
    np.testing.assert_allclose(task.finals("SAC", "eval"), [1000, 3000])
    figures = auc.against([task], ["PMOE-SAC K=4"], stats.mean)
    assert figures["percent"] == pytest.approx(100)
    assert figures["better"] == 0.5


def test_bent_curves_with_other_steps_have_their_own_areas(tmp_path):
    """Each by its own points, with what lies between them at the ends."""
    make(tmp_path, seed=1, steps=[0, 100, 300, 400], returns=[0, 10, 10, 50], total_timesteps=400)
    make(tmp_path, seed=2, steps=[50, 150, 350], returns=[4, 0, 8], total_timesteps=400, done=False)
    (task,), _ = compared(tmp_path)
    assert (task.first, task.last) == (50, 350)
    first = 50 * 7.5 + 200 * 10 + 50 * 20
    second = 100 * 2 + 200 * 4
    np.testing.assert_allclose(task.areas("PMOE-SAC K=4"), [first / 300, second / 300])


# References


@pytest.mark.parametrize(
    "reference, base",
    [
        (None, "SAC"),
        ("SAC", "SAC"),
        ("sac", "SAC"),
        ("sac-k1", "SAC"),
        ("sac-k2", "PMOE-SAC K=2"),
        ("PMOE-SAC K=2", "PMOE-SAC K=2"),
        ("pmoe-sac k=4", "PMOE-SAC K=4"),
        ("gating", "Gating K=4"),
        ("gating-sac", "Gating K=4"),
        ("gating-sac-k4", "Gating K=4"),
    ],
)
def test_the_reference(tmp_path, reference, base):
    for algo, k in (("gating-sac", 4), ("sac", 4), ("sac", 2), ("sac", 1)):
        make(tmp_path, algo, k=k)
    if reference:
        found, _ = runs.find([tmp_path])
        reference = auc.reference_name(found, reference)
    (task,), notes = compared(tmp_path, reference)
    assert task.base == base
    first, *others = task.methods
    assert first == base
    assert len(others) == 3
    assert notes == []


def test_the_reference_by_its_folder(tmp_path):
    """With a tag, or a hash of its options"""
    make(tmp_path)
    folder = make(tmp_path, gamma=0.9).parent.name
    found, _ = runs.find([tmp_path])
    assert auc.reference_name(found, folder) == "PMOE-SAC K=4 gamma=0.9"


def test_each_family_has_its_reference(tmp_path):
    for algo, k in (("ppo", 1), ("dac", 4), ("sac", 1), ("sac", 4)):
        make(tmp_path, algo, k=k, total_timesteps=1000)
    tasks, _ = compared(tmp_path)
    assert [(task.family, task.base) for task in tasks] == [("PPO", "DAC K=4"), ("SAC", "SAC")]
    (task,), _ = compared(tmp_path, "ppo")
    assert task.base == "PPO"


def test_a_fork_stands_in_its_parents_family(tmp_path, monkeypatch):
    monkeypatch.setitem(MODULES, "my_ppo", MODULES["ppo"])
    for algo in ("sac", "my_idea", "dac", "my_ppo"):
        make(tmp_path, algo, k=1)
    tasks, _ = compared(tmp_path)
    families = {task.family: set(task.methods) for task in tasks}
    assert families == {"SAC": {"SAC", "my_idea K=1"}, "PPO": {"DAC K=1", "my_ppo K=1"}}


def test_two_forks_of_one_name_are_compared(tmp_path):
    for folder in ("one", "other"):
        make(tmp_path / folder, "my_idea", file=f"/home/{folder}/my_idea.py")
    _, (note,) = compared(tmp_path, "my_idea")
    assert "my_idea may be my_idea K=4 one or my_idea K=4 other; percents need --reference" in note
    (task,), notes = compared(tmp_path, "my_idea K=4 other")
    assert list(task.methods) == ["my_idea K=4 other", "my_idea K=4 one"]
    assert notes == []


def test_a_reference_that_may_be_two(tmp_path):
    for k in (2, 4):
        make(tmp_path, k=k)
    (task,), (note,) = compared(tmp_path, "PMOE-SAC")
    assert task.base == ""
    assert "PMOE-SAC may be PMOE-SAC K=2 or PMOE-SAC K=4; percents need --reference" in note


def test_a_reference_is_the_same_method_everywhere(tmp_path):
    """Where an environment has no SAC, nothing else takes its place."""
    seeds(tmp_path, "sac", [100] * 2, k=1)
    for env in ("Hopper-v4", "Ant-v4"):
        seeds(tmp_path, "sac", [150] * 2, k=4, env_id=env)
    tasks, notes = compared(tmp_path, "sac")
    assert [task.base for task in tasks] == ["", "SAC"]
    assert "Ant-v4" in notes[0]


# Figures


@pytest.mark.parametrize("center, percent", [("mean", 100 * 4 / 2.5), ("iqm", 100 * 3 / 2)])
def test_figures_by_hand(tmp_path, center, percent):
    areas = {"SAC": (1, 2, 2, 2, 5.5), "PMOE-SAC K=2": (1, 2, 3, 4, 10)}
    seeds(tmp_path, "sac", areas["SAC"], k=1)  # mean 2.5, IQM 2
    seeds(tmp_path, "sac", areas["PMOE-SAC K=2"], k=2)  # mean 4, IQM 3
    (sac, pmoe), notes = report(tmp_path, center=center)
    assert notes == []
    assert numbers(sac, "mean", "iqm", "percent") == pytest.approx([2.5, 2, 100])
    assert numbers(pmoe, "mean", "iqm", "percent", "final") == pytest.approx([4, 3, percent, 8])
    wins = 0.5 + 2.5 + 4 + 4 + 5
    assert float(pmoe["better"]) == pytest.approx(wins / 25)
    assert sac["better"] == "nan"

    for record in (sac, pmoe):
        low, middle, high = numbers(record, "low", center, "high")
        assert -1 <= low < middle < high
    for name in ("percent", "better"):
        low, middle, high = numbers(pmoe, f"{name}_low", name, f"{name}_high")
        assert 0 <= low < middle < high
    assert high <= 1
    assert float(sac["high"]) <= 7

    each = records_of(tmp_path / "auc_runs.csv")
    found = [(record["method"], record["seed"], *numbers(record, "auc", "final")) for record in each]
    expected = []
    for method, values in areas.items():
        expected += [(method, str(seed), x, 2 * x) for seed, x in enumerate(values, 1)]
    assert found == expected
    name = "IQM" if center == "iqm" else "mean"
    assert f"AUC, {name} (95 %)" in (tmp_path / "auc.md").read_text()


def test_the_interval_of_a_percentage_knows_the_references_luck(tmp_path):
    seeds(tmp_path, "sac", [50, 80, 100, 120, 150], k=1)
    seeds(tmp_path, "sac", [100] * 5, k=2)
    (task,), _ = compared(tmp_path)
    found = auc.against([task], ["PMOE-SAC K=2"], stats.mean)
    assert found["percent"] == pytest.approx(100)
    assert found["percent_low"] < 85
    assert found["percent_high"] > 118


def test_no_interval_of_percents_where_the_reference_may_be_nothing(tmp_path):
    """As on a bandit whose peak some seeds do not find: their returns are 1e-20."""
    seeds(tmp_path, "sac", [1e-20, 1e-20, 1e-20, 1e-20, 1], k=1)
    seeds(tmp_path, "sac", [1] * 5, k=2)
    (task,), _ = compared(tmp_path)
    found = auc.against([task], ["PMOE-SAC K=2"], stats.mean)
    assert found["percent"] == pytest.approx(500)
    assert np.isnan([found["percent_low"], found["percent_high"]]).all()


@pytest.mark.parametrize("returns", [[-100, 20], [1e-20, 1e-20]])
def test_no_percents_of_what_is_not_above_0_or_hardly(pmoe_here, tmp_path, returns):
    seeds(tmp_path / "runs", "sac", returns, k=1)
    seeds(tmp_path / "runs", "sac", [50, 60], k=2)
    result = pmoe_here("plot", "runs", "--auc")
    note = "the area of SAC is 0 or less, or next to nothing, so that percentages of it mean nothing"
    assert note in result.stdout
    records = records_of(tmp_path / "figures/auc.csv")
    assert [record["percent"] for record in records] == ["nan", "nan"]
    assert records[1]["better"] == "1.0"  # which needs no percents
    text = (tmp_path / "figures/auc.md").read_text()
    lines = [line.split(" | ") for line in text.splitlines() if "|" in line]
    assert [line[5] for line in lines[2:]] == ["–", "–"]


def test_why_there_is_no_interval_of_percents(tmp_path):
    """Five seeds are not too few; but drawn again, the reference's mean is now and then below 0."""
    seeds(tmp_path, "sac", [-300, 100, 100, 100, 100], k=1)
    seeds(tmp_path, "sac", [100] * 5, k=2)
    (_, record), notes = report(tmp_path)
    assert float(record["percent"]) == pytest.approx(500)
    assert record["percent_low"] == "nan"
    (note,) = [note for note in notes if "no interval" in note]
    assert "PMOE-SAC K=2" in note
    assert "too few" not in note


def test_why_there_is_none_is_said_of_this_environment(tmp_path):
    """However few runs another has whose name contains it, or another method"""
    for env, n in (("Bimodal-v0", 2), ("Bimodal-v0,left=0.75", 5)):
        seeds(tmp_path, "sac", [-300, 100, 100, 100, 100][:n], k=1, env_id=env)
        seeds(tmp_path, "sac", [100] * n, k=2, env_id=env)
    seeds(tmp_path, "mcp-sac", [1, 2], env_id="Bimodal-v0,left=0.75")
    _, notes = report(tmp_path)
    (note,) = [note for note in notes if "no interval" in note]
    assert note.startswith("Bimodal-v0,left=0.75: no interval of the percentages of PMOE-SAC K=2: in some")


# Several environments


def test_environments_together(tmp_path):
    """The mean over environments of the percentages there, however many seeds each has"""
    for env, scale in (("Hopper-v4", 1), ("Ant-v4", 1000)):
        seeds(tmp_path, "sac", [scale] * 5, k=1, env_id=env)
        seeds(tmp_path, "gating-sac", [scale * 1.5] * 5, env_id=env)
    seeds(tmp_path, "mcp-sac", [1, 2, 3], env_id="Hopper-v4")
    seeds(tmp_path, "mcp-sac", [500] * 4, env_id="Ant-v4")
    records, notes = pooled(tmp_path)
    sac, gating, mcp = records
    assert sac["environment"] == "Ant-v4, Hopper-v4"
    assert [record["n"] for record in records] == ["10", "10", "7"]
    # No wider for the scales
    assert numbers(gating, "percent", "percent_low", "percent_high") == [150, 150, 150]
    assert float(mcp["percent"]) == pytest.approx((200 + 50) / 2)
    on_hopper = (0.5 + 1 + 1) / 3
    assert float(mcp["better"]) == pytest.approx((on_hopper + 0) / 2)
    assert notes == []
    assert "2 environments (Ant-v4, Hopper-v4), 1,000,000 steps" in (tmp_path / "auc.md").read_text()


def test_where_no_run_is_out_of_order_more_environments_leave_less_doubt(tmp_path):
    for env in ("Hopper-v4", "Ant-v4"):
        seeds(tmp_path, "sac", [1, 2, 3, 4, 5], k=1, env_id=env)
        seeds(tmp_path, "sac", [6, 7, 8, 9, 10], k=4, env_id=env)
        seeds(tmp_path, "mcp-sac", [-1, -2, -3, -4, -5], env_id=env)
    records, _ = report(tmp_path)
    figures = [numbers(record, "better_low", "better", "better_high") for record in records]
    (_, pmoe, mcp), (_, pmoe_pooled, mcp_pooled) = figures[:3], figures[6:]
    assert 0.5 < pmoe[0] < 0.6 < pmoe_pooled[0] < 0.8
    assert pmoe[1:] == pmoe_pooled[1:] == [1, 1]
    assert mcp == pytest.approx([1 - x for x in reversed(pmoe)])
    assert mcp_pooled == pytest.approx([1 - x for x in reversed(pmoe_pooled)])


def test_versions_and_budgets_are_never_pooled(tmp_path):
    for env, steps in (("Hopper-v4", 1_000_000), ("Hopper-v5", 1_000_000), ("Ant-v4", 2_000_000)):
        for k in (1, 2):
            seeds(tmp_path, "sac", [1], k=k, env_id=env, total_timesteps=steps)
    records, _ = report(tmp_path)
    assert [(record["environment"], record["steps"]) for record in records[::2]] == [
        ("Ant-v4", "2000000"),
        ("Hopper-v4", "1000000"),
        ("Hopper-v5", "1000000"),
    ]
    assert {record["n"] for record in records} == {"1"}
    assert "environments" not in (tmp_path / "auc.md").read_text()


def test_a_run_that_was_made_longer_is_still_pooled(tmp_path):
    for env in ("Ant-v4", "Hopper-v4"):
        make(tmp_path, k=1, env_id=env)
    make(tmp_path, k=4, env_id="Ant-v4")
    make(tmp_path, k=4, env_id="Hopper-v4", total_timesteps=2_000_000)
    rows, notes = pooled(tmp_path)
    assert [row["method"] for row in rows] == ["SAC", "PMOE-SAC K=4"]
    assert len(notes) == 1
    assert "areas up to step 1,000,000" in notes[0]


def test_a_method_that_an_environment_lacks_is_named(tmp_path):
    for env in ("Ant-v4", "Hopper-v4"):
        seeds(tmp_path, "sac", [1], k=1, env_id=env)
    seeds(tmp_path, "mrp-sac", [1], env_id="Ant-v4")
    (row,), notes = pooled(tmp_path)
    assert row["method"] == "SAC"
    (note,) = [note for note in notes if " is not among " in note]
    assert note.startswith("MRP K=5 is not among 2 environments")
    assert note.endswith("it has no runs on Hopper-v4")


def test_a_method_may_have_another_k_in_another_environment(tmp_path):
    for env, k in (("Ant-v4", 4), ("HalfCheetah-v4", 2)):
        seeds(tmp_path, "sac", [100], k=1, env_id=env)
        seeds(tmp_path, "sac", [150], k=k, env_id=env)
    rows, _ = pooled(tmp_path)
    assert [row["method"] for row in rows] == ["SAC", "PMOE-SAC K=4/2"]
    seeds(tmp_path, "sac", [200], k=8, env_id="Ant-v4")  # now there are two of them in one environment
    rows, notes = pooled(tmp_path)
    assert [row["method"] for row in rows] == ["SAC"]
    missing = [note.split(" is ")[0] for note in notes if " is not " in note]
    assert missing == [f"PMOE-SAC K={k}" for k in (4, 8, 2)]


def test_the_reference_is_named_as_in_each_environment(pmoe_here, tmp_path):
    """By its whole label, as another method of its name may stand beside it; where its K differs, without"""
    for env in ("Ant-v4", "Hopper-v4"):
        seeds(tmp_path / "same", "sac", [1, 2, 3], k=2, env_id=env)
        seeds(tmp_path / "same", "sac", [1, 2, 3], k=4, env_id=env)
    pmoe_here("plot", "same", "--auc", "--reference", "PMOE-SAC K=2", "--out", "same")
    assert "| % of PMOE-SAC K=2, mean (95 %) |" in (tmp_path / "same/auc.md").read_text()

    for env, k in (("Ant-v4", 4), ("Hopper-v4", 8)):
        seeds(tmp_path / "other", "ppo", [1, 2, 3], k=1, env_id=env)
        seeds(tmp_path / "other", "dac", [1, 2, 3], k=k, env_id=env)
    pmoe_here("plot", "other", "--auc", "--out", "other")
    assert "| % of DAC, mean (95 %) |" in (tmp_path / "other/auc.md").read_text()


def test_a_method_that_is_not_the_same_everywhere_is_named(tmp_path):
    for env, rate in (("Ant-v4", 1e-3), ("Hopper-v4", 1e-4)):
        seeds(tmp_path, "sac", [1, 2], k=1, env_id=env)
        seeds(tmp_path, "gating-sac", [1, 2], env_id=env, learning_rate=rate)
    _, notes = pooled(tmp_path)
    (note,) = [note for note in notes if "not the same" in note]
    assert note.startswith("Gating K=4 ")
    assert "learning_rate differ" in note


def test_how_often_it_is_evaluated_is_no_difference(tmp_path):
    for env, every in (("Ant-v4", 100), ("Hopper-v4", 200)):
        seeds(tmp_path, "sac", [1, 2, 3], k=1, env_id=env, eval_every=every)
    rows, notes = pooled(tmp_path)
    assert [row["method"] for row in rows] == ["SAC"]
    assert notes == []


# Tables


def test_golden_tables(pmoe_here, tmp_path):
    """All seeds of a method have one area, so that the intervals are known, too, and P(better) is 0, 1 or of
    ties alone; one method has a single seed."""
    seeds(tmp_path / "runs", "sac", [200] * 5, k=1)
    seeds(tmp_path / "runs", "sac", [300] * 5, k=4)
    seeds(tmp_path / "runs", "mcp-sac", [200] * 5, k=4, tag="a_b")
    seeds(tmp_path / "runs", "mcp-sac", [1500.04], k=4, tag="c")
    result = pmoe_here("plot", "runs", "--auc", "--reference", "SAC")
    assert result.returncode == 0
    assert result.stderr == ""
    title = "Hopper-v4, 1,000,000 steps: area under the evaluation curve from step 250,000 to 1,000,000"
    head = ["method", "n", "AUC, mean (95 %)", "AUC, IQM", "final return"]
    head += ["% of SAC (95 %)", "P(better than SAC) (95 %)"]
    rows = [
        ["SAC", "5", "200.0 (200.0, 200.0)", "200.0", "400.0", "100.0", "–"],
        ["PMOE-SAC K=4", "5", "300.0 (300.0, 300.0)", "300.0", "600.0"],
        ["MCP-SAC K=4 a_b", "5", "200.0 (200.0, 200.0)", "200.0", "400.0"],
        ["MCP-SAC K=4 c", "1", "1500", "1500", "3000", "750.0", "1.00 (0.21, 1.00)"],
    ]
    rows[1] += ["150.0 (150.0, 150.0)", "1.00 (0.57, 1.00)"]
    rows[2] += ["100.0 (100.0, 100.0)", "0.50 (0.17, 0.83)"]
    printed = words_of(result.stdout)
    assert title in printed
    for row in rows:
        assert " ".join(row) in printed

    lines = [f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * 6], *rows)]
    few = "fewer than five seeds, so that intervals are wide; of one or two only P(better) has one"
    few += ": Hopper-v4, MCP-SAC K=4 c (1)"
    expected = [title, "", *lines, "", auc.FOOT, "", f"- {few}"]
    assert (tmp_path / "figures/auc.md").read_text().splitlines() == expected

    body = []
    for row in (head, *rows):
        line = " & ".join(row)
        body.append(line.replace("%", r"\%").replace("_", r"\_").replace("–", "--") + r" \\")
    expected = [r"\begin{table} \centering \caption{" + title + r"} \begin{tabular}{lrrrrrr}"]
    expected += [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    expected += [r"\end{tabular} \end{table}", "", tables.escape(auc.FOOT), "", f"% {few}"]
    assert (tmp_path / "figures/auc.tex").read_text().splitlines() == expected

    record = records_of(tmp_path / "figures/auc.csv")[1]
    low, high = numbers(record, "better_low", "better_high")
    # Wilson's where all trials succeed
    assert low == pytest.approx(5 / (5 + 1.959964**2))
    assert high == 1
    for name in ("better_low", "better_high"):
        del record[name]
    assert record == {
        "environment": "Hopper-v4",
        "steps": "1000000",
        "first": "250000",
        "last": "1000000",
        "method": "PMOE-SAC K=4",
        "n": "5",
        "center": "mean",
        "low": "300.0",
        "high": "300.0",
        "mean": "300.0",
        "iqm": "300.0",
        "final": "600.0",
        "reference": "SAC",
        "percent": "150.0",
        "percent_low": "150.0",
        "percent_high": "150.0",
        "better": "1.0",
    }


@pytest.mark.parametrize("algos, missing", [(["sac", "gating-sac"], "SAC"), (["ppo", "mcp-ppo"], "DAC")])
def test_without_its_reference_a_table_has_no_percents(pmoe_here, tmp_path, algos, missing):
    for algo in algos:
        make(tmp_path / "runs", algo)
    result = pmoe_here("plot", "runs", "--auc", "--profile")
    assert result.returncode == 0
    assert f"no {missing}; percents need --reference, one of: " in result.stdout
    records = records_of(tmp_path / "figures/auc.csv")
    assert {record["percent"] for record in records} == {"nan"}
    assert "% of" not in result.stdout
    assert "no performance profile" in result.stdout
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    assert names == {"curves.png", "curves.pdf", "auc.csv", "auc.md", "auc.tex", "auc_runs.csv"}
