"""`pmoe plot --routing --primitives --tsne`: what trained policies do, from short runs, and the figures' data."""

import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common import MODULES, failed, refused, rows_of, run_at, train
from scipy import integrate, stats

import pmoe.envs  # noqa: F401
from pmoe.plots import policies, primitives, routing, runs, tsne

EPISODES = 3


@pytest.fixture(scope="module")
def reaching(tmp_path_factory):
    """PMOE-SAC and gating, K = 3, on TargetReaching-v0, whose episodes differ in length, and plain SAC"""
    root = tmp_path_factory.mktemp("reaching")
    for algo, k in (("sac", 3), ("gating-sac", 3), ("sac", 1)):
        train(algo, root, env_id="TargetReaching-v0", k=k, total_timesteps=300)
    return root


# What a policy does


def test_a_rollout_is_the_evaluation(quick_run, algo):
    run, module = run_at(quick_run(algo)), MODULES[algo]
    seen = policies.rollout(run, EPISODES)
    actor = module.load_actor(run.path)
    assert (seen["returns"] == module.Envs(run.env, EPISODES).evaluate(actor.act, [1], 400)[0]).all()
    n, k = len(seen["obs"]), 2
    shapes = {"obs": (n, 3), "action": (n, 1), "reward": (n,), "log_w": (n, k), "chosen": (n,), "mean": (n, k, 1)}
    shapes |= {"log_std": (n, k, 1), "each": (n, k, 1), "done": (n,), "episode": (n,), "time": (n,)}
    assert {name: seen[name].shape for name in shapes} == shapes
    assert (seen["episode"] == np.repeat(range(EPISODES), 200)).all()  # Pendulum's have 200 steps
    assert (seen["time"] == np.tile(range(200), EPISODES)).all() and (seen["done"] == (seen["time"] == 199)).all()
    assert np.bincount(seen["episode"], seen["reward"]) == pytest.approx(seen["returns"])
    assert np.exp(seen["log_w"]).sum(-1) == pytest.approx(1, abs=1e-5)
    assert (seen["chosen"] == seen["log_w"].argmax(-1)).all()
    acting = seen["each"][np.arange(n), seen["chosen"]]
    if hasattr(module, "compose"):
        assert policies.composes(run) and not np.allclose(acting, seen["action"], atol=1e-4)
        mixed = actor.act(torch.from_numpy(seen["obs"])[None])[0].numpy().clip(*seen["bounds"])
        assert seen["action"] == pytest.approx(mixed, abs=1e-5)
    else:
        assert not policies.composes(run) and seen["action"] == pytest.approx(acting, abs=1e-5)


def test_a_primitive_alone(quick_run, algo):
    run, module = run_at(quick_run(algo)), MODULES[algo]
    for primitive in range(2):
        seen = policies.rollout(run, EPISODES, primitive)
        actor = module.load_actor(run.path)

        def act(obs, actor=actor, primitive=primitive):
            return actor.act(obs, lambda log_w: torch.full_like(log_w[..., :1], primitive).long())

        assert (seen["returns"] == module.Envs(run.env, EPISODES).evaluate(act, [1], 400)[0]).all()
        assert seen["action"] == pytest.approx(seen["each"][:, primitive], abs=1e-5)
        assert (seen["chosen"] == primitive).all()


def test_the_routers_probabilities_are_the_actors(quick_run):
    for algo in ("sac", "ppo", "mrp-sac", "gating-sac"):
        run = run_at(quick_run(algo))
        seen, actor = policies.rollout(run, 1), MODULES[algo].load_actor(run.path)
        mean, log_std, log_w = policies.gaussians(actor, torch.from_numpy(seen["obs"])[None])
        for name, x in {"mean": mean, "log_std": log_std, "log_w": log_w}.items():
            assert seen[name] == pytest.approx(x.numpy(), abs=1e-5)


def test_mcps_weights_are_shares_of_its_gates(quick_run):
    run = run_at(quick_run("mcp-sac"))
    seen, actor = policies.rollout(run, 1), MODULES["mcp-sac"].load_actor(run.path)
    gates = policies.gaussians(actor, torch.from_numpy(seen["obs"])[None])[2].exp().numpy()
    assert (gates < 1).all() and np.exp(seen["log_w"]) == pytest.approx(gates / gates.sum(-1, keepdims=True), abs=1e-5)


def test_dac_keeps_its_option(quick_run):
    run, module = run_at(quick_run("dac")), MODULES["dac"]
    seen, actor = policies.rollout(run, EPISODES), module.load_actor(run.path)
    with torch.no_grad():
        obs = actor.statistics.normalize(torch.from_numpy(seen["obs"])[None])
        *_, log_mu, ends = actor(obs)
    before = np.where(seen["time"] == 0, -1, np.roll(seen["chosen"], 1))
    log_high = module.high_log_prob(log_mu, ends, torch.from_numpy(before)[None, :, None])[0]
    assert seen["log_w"] == pytest.approx(log_high.numpy(), abs=1e-5)


def test_episodes_of_different_length(reaching):
    run = next(run for run in runs.find([reaching])[0] if run.args["k"] == 3)
    seen = policies.rollout(run, 8)
    lengths = np.bincount(seen["episode"])
    assert len(set(lengths)) > 1 and (np.diff(seen["episode"]) >= 0).all()
    assert (seen["time"] == np.concatenate([range(n) for n in lengths])).all()
    assert (np.flatnonzero(seen["done"]) == np.cumsum(lengths) - 1).all()
    assert np.bincount(seen["episode"], seen["reward"]) == pytest.approx(seen["returns"], abs=1e-3)
    first = seen["obs"][seen["time"] == 0]
    assert first[:, -4:] == pytest.approx(0)  # at rest


def test_the_first_seed_of_each_method_is_shown(tmp_path):
    for seed in (3, 2):
        train("sac", tmp_path, seed=seed, total_timesteps=200)
    train("sac", tmp_path, k=1, total_timesteps=200)
    picked, notes = policies.pick(runs.find([tmp_path])[0])
    assert [(run.args["k"], run.seed) for run in picked] == [(2, 2)]
    assert any(f"the policy shown is {picked[0].path} at step 200" in note for note in notes)
    assert any("Pendulum-v1, SAC: " in note and "one primitive" in note for note in notes)
    for file in picked[0].path.glob("checkpoint/*.pt"):
        file.unlink()
    picked, notes = policies.pick(runs.find([tmp_path])[0])
    assert [run.seed for run in picked] == [3] and any("seed2 has no checkpoint" in note for note in notes)
    for file in picked[0].path.glob("checkpoint/*.pt"):
        file.write_bytes(b"")
    with pytest.raises(runs.PlotError, match="is damaged"):
        policies.pick(runs.find([tmp_path])[0])


def test_a_fork_is_named(tmp_path):
    fork = SimpleNamespace(env="E", method="my_idea", seed=1, name="my_idea", algo="my_idea", args={"k": 4}, budget=1)
    fork.path = tmp_path
    with pytest.raises(runs.PlotError, match="'my_idea', not of pmoe's"):
        policies.pick([fork])


@pytest.mark.parametrize("figure", ["routing", "primitives", "tsne"])
def test_one_primitive_is_refused(pmoe_here, reaching, tmp_path, figure):
    result = pmoe_here("plot", next(reaching.glob("*/sac-k1*")), f"--{figure}")
    failed(result, "TargetReaching-v0, SAC", "one primitive")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [("TargetReaching-v0", "PMOE-SAC K=4 lr=0.001"), ("my/Env-v0", "a b.c")])
def test_file_names(tmp_path, words):
    file = policies.stem(tmp_path, "routing", *words)
    assert file.parent == tmp_path and file.with_suffix(".png").stem == file.name


# Actions drawn as in training

MEAN, STD, W = (np.array(x) for x in ((-0.8, 0.6), (0.2, 0.5), (0.3, 0.7)))  # of two primitives
DRAWS = 4000


@pytest.fixture
def apart(quick_run, algo, monkeypatch):
    """A run whose primitives are those above in every state"""
    module = MODULES[algo]
    load_actor = module.load_actor

    def load_apart(path):
        actor = load_actor(path)
        forward = actor.forward

        def constant(obs):
            mean, _, log_w, *more = forward(obs)
            mean, std = (torch.tensor(x[:, None]).float().expand_as(mean) for x in (MEAN, STD))
            return mean, std.log(), torch.tensor(W).float().log().expand_as(log_w), *more

        actor.forward = constant
        return actor

    monkeypatch.setattr(module, "load_actor", load_apart)
    return run_at(quick_run(algo))


def draws(run, primitive=None) -> np.ndarray:
    """Drawn for one observation, before the tanh, (N,)"""
    many = SimpleNamespace(n=DRAWS, obs_size=3, low=np.float32([-2]), high=np.float32([2]))
    obs = torch.tensor([0.5, -0.8, 0.3]).expand(1, DRAWS, 3)
    act, again = (policies.sampler(run, many, primitive) for _ in range(2))
    action = act(obs)
    assert action.shape == (1, DRAWS, 1)
    assert torch.equal(action, again(obs)) and not torch.equal(action, act(obs))
    return (action if run.family == "PPO" else (action / 2).atanh()).double().numpy().ravel()


def assert_moments(x: np.ndarray, mean: float, std: float) -> None:
    """Within some five standard errors"""
    assert x.mean() == pytest.approx(mean, abs=5 * std / DRAWS**0.5) and x.std() == pytest.approx(std, rel=0.06)


@pytest.mark.parametrize("primitive", [0, 1])
def test_a_primitive_alone_draws_from_its_gaussian(apart, primitive):
    x = draws(apart, primitive)
    assert_moments(x, MEAN[primitive], STD[primitive])
    assert stats.kstest((x - MEAN[primitive]) / STD[primitive], "norm").pvalue > 1e-4


def test_a_policy_draws_from_its_mixture_or_from_what_it_composes(apart, algo):
    if algo == "gating-sac":  # u = sum_k w_k u_k
        mean, variance = W @ MEAN, W**2 @ STD**2
    elif algo.startswith("mcp"):  # prod_k N_k^w_k
        variance = 1 / (W / STD**2).sum()
        mean = variance * (W * MEAN / STD**2).sum()
    else:
        mean = W @ MEAN
        variance = W @ (STD**2 + MEAN**2) - mean**2
    assert_moments(draws(apart), mean, variance**0.5)


@pytest.mark.parametrize("algo", ["gating-sac"])
def test_draws_are_by_the_options_of_the_run(apart):
    printed = replace(apart, args=apart.args | {"variance": "printed"})
    assert_moments(draws(printed), W @ MEAN, (W @ STD**2) ** 0.5)


def test_another_seed_draws_otherwise(apart, algo):
    assert (draws(apart) != draws(replace(apart, args=apart.args | {"seed": 2}))).all()


# Routing


def test_routing_is_drawn_as_it_was(reaching, drawn, monkeypatch):
    run = next(run for run in runs.find([reaching])[0] if run.method == "PMOE-SAC K=3")
    monkeypatch.setattr(routing, "choose_renderer", lambda env: "no library")
    _, notes = routing.report([run], reaching, episodes=EPISODES)
    shown = f"TargetReaching-v0, PMOE-SAC K=3: the policy shown is {run.path} at step 300"
    assert notes == [shown, "TargetReaching-v0: drawn without frames, as nothing renders here (no library)"]
    seen = policies.rollout(run, EPISODES)
    probabilities = np.exp(seen["log_w"][seen["episode"] == 0])
    along, strip, used, *bars = drawn[0].axes
    assert len(along.collections) == 3 and len(bars) == 5 and f"return {seen['returns'][0]:.0f}" in along.get_title()
    heights = [
        np.ptp([path.vertices[path.vertices[:, 0] == 0.0][:, 1]]) for c in along.collections for path in c.get_paths()
    ]
    assert heights == pytest.approx(probabilities[0], abs=1e-6)
    colours = strip.images[0].get_array()[0]
    assert len(colours) == len(probabilities)
    assert len(np.unique(colours, axis=0)) == len(np.unique(probabilities.argmax(-1)))
    share = np.bincount(seen["chosen"], minlength=3) / len(seen["chosen"])
    assert [bar.get_height() for bar in used.patches] == pytest.approx([*np.exp(seen["log_w"]).mean(0), *share])
    for ax, step in zip(bars, routing.moments(len(probabilities))):
        assert ax.get_xlabel() == f"step {step}"
        assert [bar.get_height() for bar in ax.patches] == pytest.approx(probabilities[step])


def test_frames_are_of_the_episode_that_is_drawn(reaching, drawn):
    run = next(run for run in runs.find([reaching])[0] if run.method == "PMOE-SAC K=3")
    first = policies.rollout(run, EPISODES)
    again = policies.rollout(run, EPISODES, frames_at=[0, 5])
    length = (first["episode"] == 0).sum()
    assert (again["obs"] == first["obs"]).all() and (again["returns"] == first["returns"]).all()
    assert len(again["frames"]) == 2 and (again["frames"][0] != again["frames"][1]).any()
    files, notes = routing.report([run], reaching, episodes=EPISODES)
    assert len(notes) == 1 and "the policy shown is" in notes[0] and len(files) == 3
    rows = [row for row in rows_of(files[-1]) if row["step"] == "5"]
    assert [float(row["probability"]) for row in rows] == pytest.approx(np.exp(first["log_w"][5]))
    assert [int(row["acts"]) for row in rows] == [int(i == first["chosen"][5]) for i in range(3)]
    images = [ax.images[0].get_array() for ax in drawn[0].axes if ax.images and not ax.axison]
    expected = policies.rollout(run, EPISODES, frames_at=routing.moments(length))["frames"]
    assert len(images) == 5 and all((a == b).all() for a, b in zip(images, expected, strict=True))


@pytest.mark.parametrize("length, steps", [(1000, [100, 300, 500, 700, 900]), (5, [0, 1, 2, 3, 4]), (1, [0])])
def test_moments(length, steps):
    assert routing.moments(length).tolist() == steps


def test_where_nothing_renders(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    assert policies.choose_renderer("Hopper-v4")
    assert os.environ["MUJOCO_GL"] == "nonsense"


# Primitives


def test_distances_by_hand():
    mean, log_std = np.array([[[0.3], [-1.1]]]), np.log([[[0.5], [1.4]]])
    p, q = stats.norm(0.3, 0.5).pdf, stats.norm(-1.1, 1.4).pdf
    overlap = integrate.quad(lambda x: np.sqrt(p(x) * q(x)), -30, 30, points=[-1, 0])[0]
    kl = integrate.quad(
        lambda x: (p(x) - q(x)) * (stats.norm(0.3, 0.5).logpdf(x) - stats.norm(-1.1, 1.4).logpdf(x)),
        -30,
        30,
        points=[-1, 0],
    )[0]
    assert primitives.bhattacharyya(mean, log_std)[0] == pytest.approx(-np.log(overlap) * (1 - np.eye(2)))
    assert primitives.symmetric_kl(mean, log_std) == pytest.approx(kl * (1 - np.eye(2)))


def test_distances_add_up_over_dimensions_and_are_means_over_states():
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(2, 7, 3, 4))
    for distance in (lambda *x: primitives.bhattacharyya(*x).mean(0), primitives.symmetric_kl):
        whole = distance(mean, log_std)
        assert whole.shape == (3, 3) and (whole == whole.T).all() and (np.diag(whole) == 0).all()
        parts = [distance(mean[:, :, [d]], log_std[:, :, [d]]) for d in range(4)]
        assert whole == pytest.approx(sum(parts)) and (whole[np.triu_indices(3, 1)] > 0).all()
        assert whole == pytest.approx(np.mean([distance(m[None], s[None]) for m, s in zip(mean, log_std)], 0))
        assert distance(mean[:, [0, 0]], log_std[:, [0, 0]]) == pytest.approx(np.zeros((2, 2)))


def test_the_gap_of_actions():
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 4.0])
    each = np.stack([low, high, (low + high) / 2])[None]
    assert primitives.action_gap(each, low, high) == pytest.approx(np.array([[0, 1, 0.5], [1, 0, 0.5], [0.5, 0.5, 0]]))


def test_entropies(monkeypatch):
    """Two of four primitives, each sure in its half of the states"""
    w = np.zeros((8, 4))
    w[:4, 0] = w[4:, 2] = 1
    with np.errstate(divide="ignore"):
        seen = {"log_w": np.log(w), "chosen": w.argmax(-1), "mean": np.zeros((8, 4, 1)), "log_std": np.zeros((8, 4, 1))}
    seen |= {"each": np.zeros((8, 4, 1)), "bounds": np.array([[-1.0], [1.0]]), "obs": np.zeros((8, 2))}
    monkeypatch.setattr(
        primitives, "rollout", lambda run, n, primitive=None: seen | {"returns": np.full(n, primitive or 9)}
    )
    m = primitives.measure(SimpleNamespace(args={"k": 4}), 2)
    assert m["entropy"] == pytest.approx(np.log(2)) and m["effective"] == pytest.approx(2)
    assert m["conditional"] == pytest.approx(0)
    assert m["usage"] == pytest.approx([0.5, 0, 0.5, 0]) and m["share"] == pytest.approx([0.5, 0, 0.5, 0])
    assert m["returns"][:, 0].tolist() == [9, 9, 1, 2, 3]
    assert primitives.entropy(np.full(5, 0.2)) == pytest.approx(np.log(5))
    assert primitives.entropy(np.float32([[1, 0], [0, 1]])).tolist() == [0, 0]


def test_primitives_of_trained_runs(reaching, tmp_path):
    picked, _ = policies.pick(runs.find([reaching])[0])
    files, _ = primitives.report(picked, tmp_path, episodes=EPISODES)
    assert {file.name for file in files} == {file.name for file in tmp_path.iterdir()}
    rows = rows_of(tmp_path / "primitives.csv")
    assert [(row["method"], row["primitive"]) for row in rows] == [
        (method, i) for method in ("PMOE-SAC K=3", "Gating K=3") for i in ("all", "0", "1", "2")
    ]
    for run, mine in zip(picked, (rows[:4], rows[4:]), strict=True):
        seen = policies.rollout(run, EPISODES)
        for row, primitive in zip(mine, (None, 0, 1, 2)):
            returns = policies.rollout(run, EPISODES, primitive)["returns"]
            assert float(row["return_mean"]) == pytest.approx(returns.mean())
            assert float(row["return_std"]) == pytest.approx(returns.std())
        usage = np.array([float(row["usage"]) for row in mine[1:]])
        assert usage == pytest.approx(np.exp(seen["log_w"]).mean(0)) and usage.sum() == pytest.approx(1, abs=1e-5)
        effective, h = float(mine[0]["effective"]), float(mine[0]["entropy"])
        assert 1 <= effective <= 3 + 1e-6 and effective == pytest.approx(np.exp(h))
        assert 0 <= float(mine[0]["conditional"]) <= h + 1e-6
        assert int(mine[0]["states"]) == len(seen["obs"])
    distances = rows_of(tmp_path / "primitives_pairs.csv")
    assert [(row["i"], row["j"]) for row in distances[:3]] == [("0", "1"), ("0", "2"), ("1", "2")]
    seen = policies.rollout(picked[0], EPISODES)
    distance = primitives.bhattacharyya(seen["mean"], seen["log_std"])[:, 0, 1]
    assert float(distances[0]["bhattacharyya"]) == pytest.approx(distance.mean())
    assert float(distances[0]["overlap"]) == pytest.approx(np.exp(-distance).mean())


# t-SNE


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(40, 5)) + 12 * np.eye(5)[i] for i in range(3)])


@pytest.mark.parametrize(
    "points", [np.random.default_rng(0).normal(size=(150, 1)), np.ones((150, 2)), np.eye(3)[[0] * 150]]
)
def test_embeddings_of_lines_and_points(points):
    where = tsne.embed(points, 0, 260)
    assert where.shape == (150, 2) and np.isfinite(where).all() and where.std() > 0


def test_embeddings_are_reproducible_and_keep_apart_what_is_apart(blobs):
    told = []
    one, again = (tsne.embed(blobs, 7, 300, told.append) for _ in range(2))
    assert one.shape == (120, 2) and (one == again).all() and told == [*range(10, 301, 10)] * 2
    centres = one.reshape(3, 40, 2).mean(1)
    spread = np.linalg.norm(one.reshape(3, 40, 2) - centres[:, None], axis=-1).max()
    assert min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 2 * spread


def test_the_printed_parameters(monkeypatch, blobs):
    import openTSNE

    given = {}

    class Spy:
        def __init__(self, **options):
            given.update(options)

        def fit(self, points):
            return points[:, :2]

    monkeypatch.setattr(openTSNE, "TSNE", Spy)
    tsne.embed(np.tile(blobs, (10, 1)), 0, 7000)
    assert (given["perplexity"], given["learning_rate"]) == (300, 150)
    assert given["early_exaggeration_iter"] + given["n_iter"] == 7000
    tsne.embed(blobs, 0, 7000)
    assert given["perplexity"] == pytest.approx(119 / 3)  # no more than the points allow


@pytest.mark.parametrize("apart, low, high", [(0.0, -0.05, 0.05), (5.0, 0.8, 1.0)])
def test_separation(apart, low, high):
    actions = np.random.default_rng(0).normal(size=(200, 3, 2)) * 0.3 + apart * np.array([[0, 0], [1, 0], [0, 1]])
    value = tsne.separation(actions, 0)
    assert low < value < high and value == tsne.separation(actions, 0)
    assert np.isnan(tsne.separation(actions[:1], 0))


@pytest.mark.parametrize("squashed", [True, False])
def test_actions_are_drawn_from_each_primitive(squashed):
    mean = np.tile(np.array([-0.5, 0.4])[None, :, None], (4000, 1, 1))
    seen = {"mean": mean, "log_std": np.log(np.full_like(mean, 0.1)), "squashed": squashed}
    seen |= {"bounds": np.array([[-2.0], [2.0]]), "each": 2 * np.tanh(mean) if squashed else mean}
    drawn, means = tsne.draw_actions(seen, 0)
    assert drawn.shape == (4000, 2, 1) and (drawn == tsne.draw_actions(seen, 0)[0]).all()
    expected = np.tanh(mean[0]) if squashed else mean[0] / 2
    assert means[0] == pytest.approx(expected) and drawn.mean(0) == pytest.approx(expected, abs=0.01)
    inside = np.arctanh(drawn) if squashed else 2 * drawn
    assert inside.std(0) == pytest.approx(0.1, rel=0.05)


def test_states_are_of_more_episodes_where_ten_are_too_short(reaching):
    run = next(run for run in runs.find([reaching])[0] if run.args["k"] == 3)
    length = len(policies.rollout(run, 10)["obs"])
    few, many = tsne.states(run, 100), tsne.states(run, length + 50)
    assert len(few["obs"]) == 100 and set(few["episode"]) <= set(range(10)) and few["episode"].max() >= 8
    assert len(many["obs"]) == length + 50 and many["episode"].max() >= 10


def test_a_policy_of_too_few_states_is_named_and_the_others_embedded(reaching, tmp_path, monkeypatch):
    found = [run for run in runs.find([reaching])[0] if run.args["k"] == 3]
    rollout = policies.rollout

    def few(run, episodes):  # gating's, whose episodes are the same few states again and again
        seen = rollout(run, episodes)
        if run.algo == "gating-sac":
            seen["obs"] = seen["obs"][np.arange(len(seen["obs"])) % 23]
        return seen

    monkeypatch.setattr(tsne, "rollout", few)
    _, notes = tsne.report(found, tmp_path, count=60, iterations=260)
    assert [row["method"] for row in rows_of(tmp_path / "tsne.csv")] == ["PMOE-SAC K=3"] * 8
    assert any("Gating K=3: not embedded" in note and "only 23 different states" in note for note in notes)
    with pytest.raises(runs.PlotError, match="only 23 different states"):
        tsne.report([run for run in found if run.algo == "gating-sac"], tmp_path, count=60, iterations=260)


def test_tsne_of_trained_runs(reaching, tmp_path, monkeypatch):
    picked, _ = policies.pick(runs.find([reaching])[0])
    kept, real = [], tsne.analyse
    monkeypatch.setattr(tsne, "analyse", lambda *args: kept.append(real(*args)) or kept[-1])
    files, _ = tsne.report(picked, tmp_path / "a", count=150, iterations=50)
    assert {file.name for file in files} == {f"tsne.{x}" for x in ("csv", "md", "tex")} | {
        f"tsne-TargetReaching-v0.{x}" for x in ("png", "pdf")
    }
    tsne.report(picked, tmp_path / "b", count=150, iterations=50)
    assert all((tmp_path / "a" / f.name).read_bytes() == (tmp_path / "b" / f.name).read_bytes() for f in files)
    rows = rows_of(tmp_path / "a/tsne.csv")
    assert len(rows) == 2 * tsne.CLUSTERS
    for run, a, mine in zip(picked, kept, (rows[:8], rows[8:])):
        assert a["where"].shape == (150, 2) and a["drawn"].shape == (150, 3, 2) and (abs(a["drawn"]) <= 1).all()
        sizes = np.bincount(a["cluster"], minlength=8)
        assert (np.diff(sizes) <= 0).all() and [int(row["states"]) for row in mine] == sizes.tolist()
        assert a["points"].shape == (sizes[0], 3, 2)
        expected = [tsne.separation(a["drawn"][a["cluster"] == c], 0) for c in range(8)]
        assert [float(row["drawn"]) for row in mine] == pytest.approx(expected, nan_ok=True)


def test_without_the_library_one_line_says_so(pmoe_here, reaching, monkeypatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    refused(pmoe_here("plot", reaching, "--tsne"), "pip install openTSNE")


def test_from_runs_to_figures(pmoe_here, reaching, tmp_path):
    result = pmoe_here("plot", reaching, "--routing", "--primitives", "--episodes", "2")
    assert result.returncode == 0, result.stderr
    names = {f"routing-TargetReaching-v0-{m}-K3.{x}" for m in ("PMOE-SAC", "Gating") for x in ("png", "pdf")}
    names |= {"routing.csv", "primitives_pairs.csv"} | {f"primitives.{x}" for x in ("csv", "md", "tex", "png", "pdf")}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == names | {"curves.png", "curves.pdf"}
    assert "the policy shown is" in result.stdout and "SAC: its policy is not shown" in result.stdout
