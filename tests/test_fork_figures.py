"""Figures of forks: as those of the project's own; where one is gone or too different, a line says so."""

import pytest
from common import failed, rows_of, train
from common_figures import make_fork, names_of, stdout_of, train_fork, words

from pmoe.plots import evaluate, policies, primitives, routing, runs, trajectories, tsne

WORLD = "TargetReaching-v0,max_episode_steps=25"
ACT = "def act(self, obs: Tensor, choose=None) -> Tensor:"
NARROW = {
    "fc1 = Linear(obs_size, hidden, rng)": "fc1 = Linear(obs_size, hidden // 2, rng)",
    "fc2 = Linear(hidden, hidden, rng)": "fc2 = Linear(hidden // 2, hidden, rng)",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Files of forks, and runs: of a fork and of PMOE-SAC; the file is written anew for each test"""
    root = tmp_path_factory.mktemp("forks")
    file = make_fork(root / "my_idea.py", {})
    train_fork(file, root / "runs", env_id=WORLD, total_timesteps=150)
    train("sac", root / "runs", env_id=WORLD, total_timesteps=150)
    # Without its copy, as older runs are, a run is shown by the fork's file, which the tests change.
    for copy in root.glob("runs/*/my_idea*/*/source.py"):
        copy.unlink()
    return root


@pytest.fixture
def fork(trained):
    """A function that changes the fork's file"""
    file = trained / "my_idea.py"
    yield lambda changes: make_fork(file, changes)
    make_fork(file, {})


def find(trained) -> list:
    found, _ = runs.find([trained / "runs"])
    return found


def only_fork(trained) -> list:
    return [run for run in find(trained) if run.algo == "my_idea"]


@pytest.mark.parametrize("figure", [primitives, routing, trajectories])
def test_figures_of_a_fork(trained, tmp_path, drawn, figure):
    files, notes = figure.report(find(trained), tmp_path, episodes=2)
    rows = rows_of(next(file for file in files if file.suffix == ".csv"))
    methods = {row["method"] for row in rows}
    assert methods == {"PMOE-SAC K=2", "my_idea K=2"}
    assert not any("not shown" in note for note in notes)


def test_states_of_a_fork(trained):
    (run,) = only_fork(trained)
    visits = tsne.visit(run, 40, 10)
    assert len(visits.obs) >= 40
    drawn, mean = tsne.draw_actions(run, visits.obs, 0)
    assert drawn.shape == mean.shape == (len(visits.obs), 2, 2)


def test_a_fork_is_evaluated(pmoe_here, trained, tmp_path):
    stdout_of(pmoe_here("eval", trained / "runs", "--episodes", 2))
    rows = rows_of(tmp_path / "figures/eval.csv")
    assert words(rows, "method") == [("PMOE-SAC K=2",), ("my_idea K=2",)]
    own, other = (float(row["return_mean"]) for row in rows)
    assert own == other  # a copy of the file is the same method


def test_a_file_that_is_gone(pmoe_here, trained, fork):
    fork({}).unlink()
    _, notes = policies.pick(find(trained))
    assert any("my_idea.py" in note for note in notes)
    out = stdout_of(pmoe_here("eval", trained / "runs", "--episodes", 1))
    assert "my_idea.py" in out
    assert "/sac-k2" in out
    with pytest.raises(runs.PlotError, match="my_idea.py"):
        policies.pick(only_fork(trained))


@pytest.mark.parametrize(
    "changes, word",
    [
        (NARROW, "does not fit the Actor of"),
        ({"state = load_part(": "state = no_such_name("}, "does not fit the Actor of"),
        ({"import tyro": "import no_such_module"}, "does not load"),
    ],
)
def test_weights_that_no_longer_fit(pmoe_here, trained, fork, changes, word):
    file = fork(changes)
    picked, notes = policies.pick(find(trained))
    assert [run.algo for run in picked] == ["sac"]
    (line,) = [note for note in notes if "my_idea K=2" in note]
    assert word in line
    assert str(file) in line
    (run,) = only_fork(trained)
    failed(pmoe_here("eval", run.path), word, str(file))


def test_a_fork_without_a_choice_of_primitives(pmoe_here, trained, fork, tmp_path):
    """Its policy is evaluated; what needs the choice leaves it out."""
    file = fork({ACT: "def act(self, obs: Tensor) -> Tensor:", "choose(log_w) if choose else ": ""})
    (run,) = only_fork(trained)
    assert evaluate.evaluate(run, 2).shape == (2,)
    with pytest.raises(runs.PlotError, match="my_idea.py is too different"):
        evaluate.evaluate(run, 2, routing="sample")
    files, notes = primitives.report(find(trained), tmp_path, episodes=1)
    rows = rows_of(files[0])
    assert {row["method"] for row in rows} == {"PMOE-SAC K=2"}
    (line,) = [note for note in notes if "not shown" in note]
    assert f"{file} is too different" in line
    result = pmoe_here("plot", run.path, "--primitives", "--episodes", 1, "--out", "figures")
    failed(result, str(file))


def test_a_fork_with_another_network(trained, fork, tmp_path, drawn):
    """Its actor returns something of its own."""
    fork({"        return mean, log_std, log_w\n": "        return {'mean': mean}\n"})
    for figure in (primitives, routing, tsne, trajectories):
        with pytest.raises(runs.PlotError, match="my_idea.py is too different"):
            figure.report(only_fork(trained), tmp_path)


def test_a_fork_that_samples_in_another_way(trained, fork, tmp_path, drawn):
    fork({"def draw(self, obs": "def sample(self, obs"})
    files, notes = trajectories.report(find(trained), tmp_path, episodes=1)
    assert "trajectories.csv" in names_of(files)
    (line,) = [note for note in notes if "not shown" in note]
    assert "my_idea.py is too different" in line
    assert "draw" in line


def test_a_fork_from_before_philox(pmoe_here, trained, fork):
    """Whose agent takes a list of generators"""
    begins = "        self.rng = rng  #"
    older = "        assert isinstance(rng[0], torch.Generator)\n        rng = Numbers([0])\n"
    fork({"Philox(": "Numbers(", "tuple[Philox,": "tuple[Numbers,", begins: older + begins})
    (run,) = only_fork(trained)
    stdout_of(pmoe_here("eval", run.path, "--episodes", 1))
    shown = stdout_of(pmoe_here("plot", run.path, "--trajectories", "--episodes", 1, "--out", "figures"))
    assert "figures/trajectories-" in shown


def test_errors_of_the_projects_own_files_stay(trained, monkeypatch):
    (run,) = [run for run in find(trained) if run.algo == "sac"]
    monkeypatch.setattr(policies.algorithm(run).Actor, "act", None)
    with pytest.raises(TypeError):
        policies.rollout(run, 1)
