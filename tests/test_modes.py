"""`pmoe plot --modes`: each measure on policies whose value is known, and what the table and figure hold."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from common import Toy, checkpoint, failed, rows_of, run_at, train
from common_figures import PICTURE, TABLE, close, column, files_of, names_of, stdout_of, words
from scipy import integrate, stats

from pmoe.envs.multigoal import Bumps
from pmoe.plots import modes, policies, primitives
from pmoe.plots.runs import find

EPISODES = 100
TOPS = Bumps().centres  # of four bumps


# Counting


def ends(counts: dict[int, int]) -> np.ndarray:
    """Episodes that end so, in any order"""
    found = np.repeat(list(counts), list(counts.values()))
    return np.random.default_rng(0).permutation(found)


COUNTED = [
    ({0: 60, 2: 31, 3: 5, 7: 4}, 3),
    ({-1: 90, 5: 10}, 1),
    ({-1: 100}, 0),
    ({0: 1, 1: 19}, 2),
]


@pytest.mark.parametrize("counts, expected", COUNTED)
def test_a_mode_counts_from_a_twentieth_of_the_episodes_on(counts, expected):
    assert modes.count_modes(ends(counts)) == expected


USUAL = [({0: 3, 4: 5, -1: 4}, 4), ({0: 3, -1: 4}, -1), ({2: 3, 1: 3}, 1)]


@pytest.mark.parametrize("counts, expected", USUAL)
def test_the_usual_end(counts, expected):
    assert modes.usual(ends(counts)) == expected


ENTROPIES = [
    ({0: 25, 1: 25, 2: 25, 3: 25}, 4, 1),
    ({0: 25, 1: 25, 2: 25, 3: 25, -1: 500}, 4, 1),
    ({0: 50, 3: 50}, 4, 0.5),
    ({2: 100}, 4, 0),
    ({-1: 100}, 4, np.nan),
    ({0: 100}, 1, np.nan),
]


@pytest.mark.parametrize("counts, number, expected", ENTROPIES)
def test_the_entropy_of_modes(counts, number, expected):
    close(modes.mode_entropy(ends(counts), number), expected)


# What an action says about its primitive

EVEN = [0.25] * 4
TWO = [0.5, 0.5]
FAR = [(2, 2), (2, -2), (-2, 2), (-2, -2)]


def known(means, sigma=0.01, w=EVEN, squashed=True, **kwargs) -> float:
    """I / log K of primitives (K, A) or, in several states, (N, K, A)"""
    mean = np.float32(means)
    if mean.ndim == 2:
        mean = mean[None]
    log_std = np.full_like(mean, np.log(sigma))
    with np.errstate(divide="ignore"):
        log_w = np.log(np.float32(w))
    log_w = np.broadcast_to(log_w, mean.shape[:2])
    return modes.information(mean, log_std, log_w, squashed, **kwargs)


def test_primitives_that_are_one_say_nothing():
    close(known([(0.3, -1)] * 4, sigma=0.7), 0, 1e-7)


def test_primitives_that_are_far_apart_say_all():
    close(known(FAR), 1, 0.01)


def test_of_a_router_that_uses_one_primitive_an_action_says_nothing():
    close(known(FAR, w=[0, 1, 0, 0]), 0, 1e-9)
    close(known(FAR, w=[1e-9, 1, 1e-9, 1e-9]), 0, 1e-6)


def test_of_primitives_far_apart_the_information_is_the_routers_entropy():
    w = [0.5, 0.3, 0.15, 0.05]
    close(known(FAR, w=w), primitives.entropy(w) / np.log(4), 0.02)


def test_saturated_twins_are_one():
    """Their Gaussians do not overlap; the environment gets 0.9951 and 1.0000."""
    twins = np.array([[[3.0], [8.0]]])
    opposite = [[[-3.0], [3.0]]]
    distance = primitives.bhattacharyya(twins, np.full((1, 2, 1), np.log(0.1)))
    assert distance[0, 0, 1] > 20
    assert known(twins, sigma=0.1, w=TWO) < 0.002
    assert known(opposite, sigma=0.1, w=TWO) > 0.99


def test_clipped_twins_are_one():
    close(known([(2,), (5,)], w=TWO, squashed=False), 0, 1e-6)
    close(known([(-2,), (5,)], w=TWO, squashed=False), 1, 0.01)


def test_the_information_is_that_of_the_integral():
    """Near 0 a tanh changes little, and what is seen is normal."""
    std = np.hypot(0.06, modes.RESOLUTION)
    low = stats.norm(-0.1, std)
    high = stats.norm(0.1, std)

    def says(a):
        p = 0.3 * low.pdf(a)
        q = 0.7 * high.pdf(a)
        w = p / (p + q)
        divergence = w * np.log(w / 0.3) + (1 - w) * np.log((1 - w) / 0.7)
        return (p + q) * divergence

    expected, _ = integrate.quad(says, -1, 1)
    got = []
    for seed in range(5):
        got.append(known([(-0.1,), (0.1,)], sigma=0.06, w=[0.3, 0.7], seed=seed))
    close(np.mean(got), expected / np.log(2), 0.01)


def test_the_information_is_the_mean_over_states():
    apart = [(-2,), (2,)]
    same = [(1,), (1,)]
    close(known([apart, same, same, same], w=TWO), 0.25, 0.01)


def test_a_dimension_that_says_nothing_changes_nothing():
    three = known([(0.1, 0.5, -3), (-0.1, 0.5, -3)], sigma=0.1, w=TWO)
    one = known([(0.1,), (-0.1,)], sigma=0.1, w=TWO)
    close(three, one, 0.05)


def test_wide_primitives_are_seen_through_the_tanh():
    """At either bound with nearly the same chance, whatever their means; of the widest that there are"""
    widest = np.exp(2)
    assert known([(-0.2,), (0.2,)], sigma=widest, w=TWO) < 0.005


def test_one_primitive_has_no_information():
    assert np.isnan(known([(1, 2)], w=[1]))


# Q


@pytest.mark.parametrize("middle, sigma", [(0.5, 0.1), (0.01, 2)])
def test_the_ratio_of_a_q_that_is_the_action(middle, sigma):
    mean = torch.tensor([[[middle], [-middle]]]).expand(500, 2, 1)
    log_std = torch.full_like(mean, sigma).log()
    ratio = modes.q_ratio(lambda a: a.squeeze(-1), mean, log_std, lambda u: u)
    close(ratio, np.sqrt(2) * middle / sigma, 0.02)


def test_the_ratio_is_of_actions_after_the_tanh():
    mean = torch.tensor([[[9.0], [-9.0]]])
    log_std = torch.zeros_like(mean)
    ratio = modes.q_ratio(lambda a: a.abs().squeeze(-1), mean, log_std, torch.tanh)
    assert ratio < 0.01


def layers(learnt: dict, x: np.ndarray, number: int) -> np.ndarray:
    """Three layers with ReLU of the number-th of several networks side by side"""
    for i in (1, 2, 3):
        weight = learnt[f"qf.fc{i}.weight"][number].numpy()
        bias = learnt[f"qf.fc{i}.bias"][number].numpy()
        x = x @ weight + bias
        x = x.clip(0) if i < 3 else x
    return x


@pytest.mark.parametrize("algo", ["sac", "gating-sac"])
def test_the_critic_is_the_checkpoint_s(quick_run, algo):
    run = run_at(quick_run(algo))
    learnt = checkpoint(run.path)["learnt"]
    obs = torch.randn(5, 3)
    action = torch.rand(5, 4, 1)
    envs = policies.make_envs(run, 1)
    q = modes.critic(run, policies.agent_of(run, envs), obs)

    seen = obs.unsqueeze(1).expand(5, 4, 3)
    pairs = torch.cat([seen, action], -1).numpy()
    one = layers(learnt, pairs, 0)
    other = layers(learnt, pairs, 1)
    close(q(action), np.minimum(one, other).squeeze(-1), 1e-4)


@pytest.mark.parametrize("algo", ["ppo", "dac", "mcp-ppo"])
def test_the_critics_of_ppos_family(quick_run, algo):
    """Only PMOE-PPO has a Q of actions."""
    run = run_at(quick_run(algo))
    envs = policies.make_envs(run, 1)
    agent = policies.agent_of(run, envs)
    obs = torch.randn(5, 3)
    q = modes.critic(run, agent, obs)
    if algo != "ppo":
        assert q is None
        return

    learnt = checkpoint(run.path)["learnt"]
    for name, x in agent.qf.state_dict().items():
        assert torch.equal(x, learnt[f"qf.{name}"])
    action = torch.rand(5, 4, 1)
    values = q(action)
    x = agent.critic_input(agent.actor.statistics.normalize(obs[None]))
    for j in range(4):
        pair = torch.cat([x, action[None, :, j]], -1)
        expected = agent.qf(pair).detach()
        close(values[:, j], expected.flatten(), 1e-4)


# Policies that are known


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Runs on both tasks, and on one that names no modes; K = 4 and 1, gating, DAC"""
    root = tmp_path_factory.mktemp("tasks")
    fields = {"total_timesteps": 160, "k": 4, "tag": "x"}
    for env_id in ("Bumps-v0", "MultiGoal-v0"):
        train("sac", root, env_id=env_id, num_seeds=3, **fields)
        for algo in ("gating-sac", "dac"):
            train(algo, root, env_id=env_id, **fields)
        train("sac", root, env_id=env_id, **fields | {"k": 1})
    train("sac", root, env_id="Pendulum-v1", **fields)
    return root


def with_policy(tasks, env_id, means, w, log_std=-5.0):
    """A run whose four primitives are in any state at these actions (4, 2), of weights w"""
    run = run_at(tasks / env_id / "sac-k4-x/seed1")
    step, actor = policies.trained(run)
    u = torch.tensor(np.array(means)).atanh()
    share = torch.full((8,), (log_std + 5) / 3.5 - 1)  # of what log sigma may be, from -1 to 1
    raw = share.clamp(min=-0.9999999).atanh()
    for layer in (actor.mean_log_std, actor.router):
        layer.weight.data.zero_()
    actor.mean_log_std.bias.data[:] = torch.cat([u.flatten(), raw])
    actor.router.bias.data[:] = torch.tensor(w).log()
    run.policy = step, actor
    return run


def measure(run) -> modes.Measures:
    m, _ = modes.measure(run, EPISODES)
    return m


def test_a_policy_that_knows_all_bumps(tasks):
    run = with_policy(tasks, "Bumps-v0", TOPS, EVEN)
    m = measure(run)
    assert modes.count_modes(m.ends) == 4
    assert m.own == [0, 1, 2, 3]
    assert m.different == 4
    assert m.starved == 0
    assert m.modes == 4
    assert modes.mode_entropy(m.ends, 4) > 0.95
    close(m.information, 1, 0.01)
    close(m.sigma, [np.exp(-5)] * 4, 1e-3)
    close(m.usage, EVEN)
    close(m.returns, np.full((5, EPISODES), 5), 0.05)
    counts = np.bincount(m.ends, minlength=4)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_policy_whose_primitives_are_one(tasks):
    run = with_policy(tasks, "Bumps-v0", [TOPS[2]] * 4, EVEN)
    m = measure(run)
    assert modes.count_modes(m.ends) == 1
    assert m.own == [2, 2, 2, 2]
    assert m.different == 1
    assert m.starved == 0
    close(modes.mode_entropy(m.ends, 4), 0)
    close(m.information, 0, 1e-6)


def test_a_policy_whose_others_starve(tasks):
    middle = (0.0, 0.0)
    means = [middle, TOPS[1], middle, middle]
    run = with_policy(tasks, "Bumps-v0", means, [1e-9, 1.0, 1e-9, 1e-9])
    m = measure(run)
    assert modes.count_modes(m.ends) == 1
    assert m.own == [-1, 1, -1, -1]
    assert m.different == 1
    assert m.starved == 3
    assert m.information < 0.01
    close(m.returns[0], np.full(EPISODES, 5), 0.05)
    assert m.returns[1].max() < 0.1


def test_a_policy_without_an_aim_knows_no_mode(tasks):
    """It hits bumps now and then; most of its actions are on none."""
    run = with_policy(tasks, "Bumps-v0", [(0.0, 0.0)] * 4, EVEN, log_std=0.0)
    m = measure(run)
    assert (m.ends < 0).mean() > 0.5
    assert m.own == [-1] * 4
    assert m.starved == 4
    close(m.sigma, [1] * 4, 1e-2)


@pytest.mark.parametrize("goal", range(4))
def test_each_primitive_alone_goes_to_a_goal(tasks, goal):
    ways = np.array([(0.9, 0), (0, 0.9), (-0.9, 0), (0, -0.9)])
    w = [1e-9] * 4
    w[goal] = 1.0
    run = with_policy(tasks, "MultiGoal-v0", ways, w)
    m, steps = modes.measure(run, 20)
    assert set(m.ends) == {goal}
    assert m.own == [0, 1, 2, 3]
    assert m.different == 4
    assert set(steps.chosen) == {goal}
    lengths = np.bincount(steps.episode)
    for length, path in zip(lengths, steps.paths, strict=True):
        assert len(path) == length + 1
        way = path[-1] - path[0]
        close(way, length * ways[goal], 0.1)


# Which primitive drew an action


def test_the_primitive_that_drew_is_known(quick_run, algo):
    """Within a few of its own sigmas, when they are small"""
    run = run_at(quick_run(algo))
    steps = policies.rollout(run, 2, sample=True)
    if policies.composes(run) or policies.primitive_count(run) == 0:
        assert (steps.chosen == steps.log_w.argmax(-1)).all()
        return
    action = steps.action.clip(-0.999, 0.999)
    u = np.arctanh(action) if run.family == "SAC" else action
    n = len(action)
    rows = np.arange(n)
    mean = steps.mean[rows, steps.chosen]
    std = np.exp(steps.log_std[rows, steps.chosen])
    inside = action == steps.action
    z = ((u - mean) / std)[inside]
    assert np.abs(z).max() < 6
    if inside.all():
        assert stats.kstest(z, "norm").pvalue > 1e-4
    if algo != "dac":  # it keeps its option
        used = np.bincount(steps.chosen, minlength=2) / n
        close(used, np.exp(steps.log_w).mean(0), 0.1)


def test_a_primitive_is_drawn_from_the_posterior():
    """Of equal Gaussians, as the router's weights; at a bound, where the inverse of tanh is infinite, too"""
    mean = torch.zeros(4000, 2, 1)
    log_w = torch.tensor([0.2, 0.8]).log().expand(4000, 2)
    action = torch.full((4000, 1), 0.3)
    generator = torch.Generator().manual_seed(0)
    chosen = policies.responsible(action, mean, mean, log_w, generator)
    close(chosen.float().mean(), 0.8, 0.03)
    mean[:, 1] = 3
    bound = policies.responsible(torch.ones(4000, 1), mean, mean, log_w, generator)
    assert (bound == 1).all()


# The report

METHODS = ["SAC", "PMOE-SAC K=4", "Gating K=4", "DAC K=4"]
SEVERAL = [("PMOE-SAC K=4", "1"), ("PMOE-SAC K=4", "2"), ("PMOE-SAC K=4", "3")]
SEVERAL += [("Gating K=4", "1"), ("DAC K=4", "1")]


@pytest.fixture(scope="module")
def folder(tasks, tmp_path_factory):
    out = tmp_path_factory.mktemp("modes")
    runs, _ = find([tasks])
    files, notes = modes.report(runs, out, episodes=20)
    pictures = files_of("modes-Bumps-v0", PICTURE) | files_of("modes-MultiGoal-v0", PICTURE)
    assert names_of(files) == files_of("modes", TABLE) | pictures == names_of(out.iterdir())
    (note,) = notes
    assert "Pendulum-v1" in note
    assert 'info["mode"]' in note
    return out


def test_every_seed_has_its_rows(folder):
    rows = rows_of(folder / "modes.csv")
    expected = []
    for env in ("Bumps-v0", "MultiGoal-v0"):
        expected.append((env, "SAC", "1", "all"))
        for method, seed in SEVERAL:
            expected += [(env, method, seed, who) for who in ("all", *"0123")]
    assert words(rows, "environment", "method", "seed", "primitive") == expected


def test_the_rows_are_the_measures(tasks, folder):
    run = run_at(tasks / "MultiGoal-v0/sac-k4-x/seed2")
    m, _ = modes.measure(run, 20)
    wanted = {"environment": "MultiGoal-v0", "method": "PMOE-SAC K=4", "seed": "2"}
    rows = rows_of(folder / "modes.csv")
    whole, *each = [row for row in rows if row.items() >= wanted.items()]
    close(float(whole["return"]), m.returns[0].mean())
    close(float(whole["information"]), m.information)
    close(float(whole["q_ratio"]), m.q_ratio)
    assert int(whole["modes"]) == modes.count_modes(m.ends)
    assert int(whole["of"]) == 4
    assert [int(row["mode"]) for row in each] == m.own
    close(column(each, "sigma"), m.sigma)
    close(column(each, "usage").sum(), 1, 1e-5)
    close(column(each, "return"), m.returns[1:].mean(1))


def test_intervals_end_where_values_do():
    """Of three seeds that know 4, 4 and 3 of 4 modes, and of I / log K near 0"""
    run = SimpleNamespace(env="Bumps-v0", method="PMOE-SAC K=4")
    group = []
    for found, information in ((4, 0.01), (4, 0.02), (3, 0.9)):
        ends = np.arange(120) % found
        blank = np.zeros((4, 120))
        m = modes.Measures(ends, blank, np.zeros((5, 120)), 4, information, np.ones(4), np.ones(4), 1.0)
        group.append((run, m))
    row = dict(zip(modes.HEAD, modes.row_of(group, 4), strict=True))
    assert row["modes"].startswith("3.7 (")
    assert row["modes"].endswith(", 4.0)")
    assert row["I / log K"].startswith("0.31 (0.00, ")


def test_a_row_of_the_table_is_a_method(folder):
    text = (folder / "modes.md").read_text()
    rows = []
    for line in text.splitlines():
        cells = line.split(" | ")
        if line.startswith(("| Bumps", "| MultiGoal")):
            rows.append(dict(zip(modes.HEAD, cells, strict=True)))
    assert words(rows, "method") == [(method,) for method in METHODS * 2]
    sac, pmoe, gating, dac = rows[:4]
    for name in ("alone", "starved", "I / log K", "Q ratio"):
        assert sac[name] == "–"
        assert pmoe[name] != "–"
    assert dac["Q ratio"] == "–"
    assert gating["Q ratio"] != "–"
    assert pmoe["n"] == "3"
    assert len(pmoe["modes, each seed"].split()) == 3
    assert "(" in pmoe["return"]


def test_the_panels(tasks, tmp_path, drawn):
    runs, _ = find([tasks / "Bumps-v0"])
    modes.report(runs, tmp_path, episodes=20)
    (figure,) = drawn
    titles = [ax.get_title() for ax in figure.axes]
    assert [title.split(",")[0] for title in titles] == METHODS

    # Actions, and of each primitive the mean and the circle of one sigma
    panel = figure.axes[1]
    (dots,) = panel.collections
    _, steps = modes.measure(run_at(tasks / "Bumps-v0/sac-k4-x/seed1"), 20)
    close(dots.get_offsets(), steps.action)
    middles = []
    rings = []
    for line in panel.lines:
        points = line.get_xydata()
        if line.get_marker() == "o":
            middles += points.tolist()
        elif len(points) == 100:
            rings.append(points)
    close(middles, steps.mean_action[0])
    assert len(rings) == 4
    assert np.abs(rings).max() <= 1


# From the command line, and other environments


class Named(Toy):
    """Says a mode"""

    def __init__(self, mode=3, **kwargs):
        super().__init__(length=2, **kwargs)
        self.mode = mode

    def step(self, action):
        *rest, info = super().step(action)
        return *rest, info | {"mode": self.mode}


gym.register("Named-v0", Named)


def test_an_environment_of_another_s(tmp_path):
    """It has no attribute `modes`, and nothing to draw."""
    train("sac", tmp_path, env_id="Named-v0", total_timesteps=160)
    runs, _ = find([tmp_path])
    files, notes = modes.report(runs, tmp_path / "out", episodes=5)
    assert names_of(files) == files_of("modes", TABLE)
    assert notes == []
    whole, *_ = rows_of(tmp_path / "out/modes.csv")
    assert whole.items() >= {"modes": "1", "of": "4", "mode": "3", "none": "0.0"}.items()


def test_a_mode_that_is_no_number(tmp_path):
    train("sac", tmp_path, env_id="Named-v0,mode='left'", total_timesteps=160)
    runs, _ = find([tmp_path])
    with pytest.raises(modes.PlotError, match="'left', which is no whole number"):
        modes.report(runs, tmp_path / "out", episodes=5)


def test_the_command(pmoe_here, tasks, tmp_path):
    bumps = tasks / "Bumps-v0/sac-k4-x"
    assert "modes.csv" in stdout_of(pmoe_here("plot", bumps, "--modes"))
    rows = rows_of(tmp_path / "figures/modes.csv")
    assert {row["episodes"] for row in rows} == {"100"}
    stdout_of(pmoe_here("plot", bumps, "--modes", "--episodes", "7"))
    assert rows_of(tmp_path / "figures/modes.csv")[0]["episodes"] == "7"


def test_environments_without_modes_alone_are_refused(pmoe_here, tasks, tmp_path):
    result = pmoe_here("plot", tasks / "Pendulum-v1", "--modes")
    failed(result, "Pendulum-v1", 'info["mode"]')
    assert not list(tmp_path.iterdir())
