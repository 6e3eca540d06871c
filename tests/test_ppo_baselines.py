"""PPO's baselines: what MCP composes, K = 1, DAC's two MDPs, seeds side by side."""

import copy

import common  # noqa: F401  registers the toy environments
import pytest
import torch
from agents import close, label, make_agent
from torch import distributions as D
from torch import nn

from pmoe import pmoe_ppo
from pmoe.baselines import dac_ppo, mcp_ppo

PPO = [mcp_ppo, dac_ppo]


# What MCP composes


def test_mcp_gates_are_open_or_shut_each_on_its_own():
    agent = make_agent(mcp_ppo)
    agent.actor.router.bias.data[:] = torch.tensor([30.0, 30.0, -30.0])
    close(
        agent.actor(torch.randn(2, 5, 4))[2].exp(), torch.tensor([1.0, 1.0, 0.0]).expand(2, 5, 3), atol=1e-6
    )


def test_one_gate_is_open():
    agent = make_agent(mcp_ppo, k=1)
    agent.actor.router.bias.data -= 7
    mean, log_std, log_w = agent.actor(torch.randn(2, 5, 4))
    composed = mcp_ppo.compose(mean, log_std, log_w)
    assert not log_w.any() and torch.equal(composed[0], mean)
    close(*torch.broadcast_tensors(composed[1], log_std), rtol=1e-6, atol=1e-6)


def test_one_primitive_of_mcp_ppo_may_be_as_wide_as_ppos():
    ppo, mcp = (make_agent(module, k=1) for module in (pmoe_ppo, mcp_ppo))
    ppo.actor.log_std.data += 3
    mcp.actor.load_state_dict(ppo.actor.state_dict())
    x = torch.randn(2, 1, 4), torch.ones(2, 1, 1, 2), torch.zeros(2, 1, 1)
    close(mcp.draw(*x)[..., 4:6], ppo.draw(*x)[..., 4:6], rtol=1e-5, atol=1e-5)


def test_act_takes_the_composed_mean_or_that_of_one_primitive():
    agent, obs = make_agent(mcp_ppo), torch.randn(2, 50, 4)
    actor = agent.actor
    actor.statistics.update(3 * obs + 1)
    policy = actor(actor.statistics.normalize(obs))
    actions = mcp_ppo.compose(*policy)[0], policy[0][:, :, 1:2]
    chosen = None, lambda log_w: torch.full_like(log_w[..., :1], 1, dtype=int)
    for action, choose in zip(actions, chosen):
        close(actor.act(obs, choose), action.squeeze(2), rtol=1e-6)


# K = 1, and seeds side by side


def world(seeds=2, envs=2, length=16, seed=0, dtype=torch.float64):
    """What a random world answers in a rollout, and the noise that an agent takes, all (S, T, E, .)"""
    g, shape = torch.Generator().manual_seed(seed), (seeds, length, envs)
    x = {
        name: torch.randn(*shape, n, generator=g) for name, n in (("obs", 4), ("next_obs", 4), ("reward", 1))
    }
    x |= {"normal": torch.randn(*shape, 1, 2, generator=g), "uniform": torch.rand(*shape, 1, generator=g)}
    x |= {name: (torch.rand(*shape, 1, generator=g) < 0.15).float() for name in ("terminated", "truncated")}
    return {name: value.to(dtype) for name, value in x.items()}


def collect(agent, world):
    """A rollout, as `train` makes it: what agent.rollout is given (S, T, E, .), and the observations seen"""
    obs, steps, seen = world["obs"][:, 0], [], []
    for t in range(world["obs"].shape[1]):
        now = {name: x[:, t] for name, x in world.items()}
        drawn, done = (
            agent.draw(obs, now["normal"], now["uniform"]),
            now["terminated"].maximum(now["truncated"]),
        )
        if hasattr(agent, "option"):
            agent.option.masked_fill_(done > 0, -1)
        steps.append(torch.cat([drawn, now["next_obs"], now["reward"], now["terminated"], done], -1))
        seen.append(obs)
        obs = torch.where(done > 0, now["obs"], now["next_obs"])
    return torch.stack(steps, 1), torch.stack(seen, 1)


def minibatches(rows, n, size=16, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [rows[:, torch.randint(rows.shape[1], (size,), generator=g)] for _ in range(n)]


def test_one_primitive_of_mcp_ppo_is_ppo():
    ppo, mcp = (make_agent(module, k=1, num_envs=2).double() for module in (pmoe_ppo, mcp_ppo))
    mcp.load_state_dict({name: ppo.state_dict()[name] for name in mcp.state_dict()})
    rows, others = (agent.rollout(collect(agent, world())[0])[0] for agent in (mcp, ppo))
    others = torch.cat([others[..., :6], others[..., 7:]], -1)  # without the primitive drawn
    close(rows, others)
    for x in minibatches(rows, 20):
        figures = mcp.update(x, None)
        theirs = ppo.update(
            torch.cat([x[..., :6], 0 * x[..., :1], x[..., 6:]], -1), torch.zeros(2, 16, 1, 2).double()
        )
        close(figures["losses/policy"], theirs["losses/policy"])
    for name, x in mcp.state_dict().items():
        torch.testing.assert_close(x, ppo.state_dict()[name], rtol=1e-6, atol=1e-9, msg=name)
    assert figures["losses/approx_kl"].min() > 1e-6


def test_mcp_ppo_draws_from_the_product_and_knows_its_density_and_entropy():
    agent = make_agent(mcp_ppo, num_envs=2).double()
    agent.actor.log_std.data += torch.randn(2, 3, 2).double() / 2
    answers = world()
    steps, _ = collect(agent, answers)
    obs, action, log_prob = steps[..., :7].flatten(1, 2).split((4, 2, 1), -1)
    mean, log_std, log_w = agent.actor(obs)
    precision = log_w.exp().unsqueeze(-1) / log_std.exp().square()
    mean = (precision * mean).sum(2) / precision.sum(2)
    normal = D.Independent(D.Normal(mean, precision.sum(2) ** -0.5), 1)
    close(action, mean + normal.base_dist.scale * answers["normal"].flatten(1, 2).squeeze(2))
    close(log_prob.squeeze(-1), normal.log_prob(action))
    figures = agent.update(agent.rollout(steps)[0], None)
    close(figures["losses/entropy"], normal.entropy().mean(1))
    assert figures["losses/approx_kl"].abs().max() < 1e-12 and not figures["losses/clip_fraction"].any()


@pytest.mark.parametrize("module", PPO, ids=label)
def test_a_seed_of_ppo_learns_the_same_alone_as_among_others(module):
    fields = {
        "num_envs": 2,
        "max_grad_norm": 0.1,
        "target_kl": 0.005,
    }  # clips every gradient; some seeds wait
    together, alone = (make_agent(module, seeds=seeds, **fields).double() for seeds in ((0, 1, 2), (1,)))
    answers = world(seeds=3)
    answers["reward"] *= torch.tensor([1.0, 3.0, 100.0]).view(3, 1, 1, 1)  # the gradient's norms differ
    steps, _ = collect(together, answers)
    own, _ = collect(alone, {name: x[1:2] for name, x in answers.items()})
    rows = together.rollout(steps)[0]
    close(alone.rollout(own)[0], rows[1:2])
    for i, x in enumerate(minibatches(rows, 10)):
        high = torch.tensor([i % 2 == 0, i < 5, i % 3 == 0]).view(3, 1, 1)
        together.update(x, high), alone.update(x[1:2], high[1:2])
    for (name, x), y in zip(together.state_dict().items(), alone.state_dict().values()):
        torch.testing.assert_close(x.chunk(3)[1], y, rtol=1e-6, atol=1e-9, msg=name)


# DAC


def high_by_hand(mu, beta, before):
    """pi_H (K,) of mu (K,), beta (K,), and the option before, -1 for none"""
    if before < 0:
        return mu
    return torch.stack([(1 - beta[before]) * (o == before) + beta[before] * mu[o] for o in range(len(mu))])


@pytest.mark.parametrize("wide", [1, 30])
def test_the_high_policy_by_brute_force(wide):
    g = torch.Generator().manual_seed(0)
    log_mu, ends = (wide * torch.randn(2, 40, 4, generator=g, dtype=torch.float64) for _ in range(2))
    log_mu, before = log_mu.log_softmax(-1), torch.randint(-1, 4, (2, 40, 1), generator=g).double()
    log_high = dac_ppo.high_log_prob(log_mu, ends, before)
    close(log_high.exp().sum(-1), torch.ones(2, 40).double())
    for s in range(2):
        for b in range(40):
            expected = high_by_hand(log_mu[s, b].exp(), ends[s, b].sigmoid(), int(before[s, b]))
            close(log_high[s, b].exp(), expected, atol=1e-12)
    assert before.unique().tolist() == [-1, 0, 1, 2, 3]


def test_the_option_before_ends_and_no_other():
    log_mu, ends = torch.randn(1, 4, 3).log_softmax(-1), torch.randn(1, 4, 3, requires_grad=True)
    before = torch.tensor([[[-1.0], [0.0], [1.0], [2.0]]])
    for o in range(3):
        log_high = dac_ppo.high_log_prob(log_mu, ends, before)
        gradient = torch.autograd.grad(log_high[..., o].sum(), ends)[0][0]
        assert torch.equal(gradient != 0, torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool())


@pytest.mark.parametrize("part, output", [("mean", 0), ("ends", 3)])
def test_option_k_of_seed_s_is_network_s_times_k(part, output):
    agent, obs = make_agent(dac_ppo), torch.randn(2, 5, 4)
    before = [x.clone() for x in agent.actor(obs)]
    getattr(agent.actor, part)[4].bias.data[1 * 3 + 2] += 1
    changed = [
        (x != y).flatten(3).any(-1) if x.dim() == 4 else x != y for x, y in zip(agent.actor(obs), before)
    ]
    assert [x.any().item() for x in changed] == [i == output for i in range(4)]
    assert changed[output][1, :, 2].all() and changed[output].sum() == 5


def test_options_are_drawn_from_the_high_policy():
    n = 20_000
    agent = make_agent(dac_ppo, seeds=[0], num_envs=n).double()
    obs, g = torch.randn(1, 1, 4).double().expand(1, n, 4), torch.Generator().manual_seed(0)
    for before in (-1, 1):
        agent.option.fill_(before)
        drawn = agent.draw(obs, torch.zeros(1, n, 1, 2).double(), torch.rand(1, n, 1, generator=g).double())
        _, _, log_mu, ends = agent.actor(drawn[:, :1, :4])
        expected = high_by_hand(log_mu[0, 0].exp(), ends[0, 0].sigmoid(), before)
        frequency = agent.option.flatten().long().bincount(minlength=3) / n
        close(frequency.double(), expected, rtol=0, atol=5 * 0.5 / n**0.5)
        assert torch.equal(drawn[..., 6:7], agent.option) and (drawn[..., 7] == before).all()


def network(layers, i, activation=nn.Tanh):
    """Network i of those side by side, in torch's own layers"""
    plain = [nn.Linear(*x.weight.shape[1:], dtype=x.weight.dtype) for x in (layers[0], layers[2], layers[4])]
    for ours, x in zip(plain, (layers[0], layers[2], layers[4])):
        ours.load_state_dict({"weight": x.weight[i].T.clone(), "bias": x.bias[i, 0].clone()})
    return nn.Sequential(plain[0], activation(), plain[1], activation(), plain[2])


@torch.no_grad()
def test_advantages_of_both_mdps_by_a_slow_loop():
    gamma, lam, length = 0.9, 0.8, 16
    agent = make_agent(dac_ppo, num_envs=3, gamma=gamma, gae_lambda=lam).double()
    answers = world(envs=3, length=length)
    steps, seen = collect(agent, answers)
    rows = agent.rollout(steps)[0].unflatten(1, (length, 3))
    assert torch.equal(rows[..., :10], steps[..., :10])
    assert answers["terminated"].sum() > 3 and answers["truncated"].sum() > 3
    for s in range(2):
        master, q = network(agent.actor.master, s), network(agent.qf, s)
        ends = [network(agent.actor.ends, s * 3 + o) for o in range(3)]
        mean, std = seen[s].flatten(0, 1).mean(0), seen[s].flatten(0, 1).std(0, correction=0)

        def v_high(x, before, master=master, ends=ends, q=q):
            beta = torch.cat([f(x).sigmoid() for f in ends])
            return (high_by_hand(master(x).softmax(-1), beta, int(before)) * q(x)).sum()

        for e in range(3):
            deltas = []
            for t in range(length):
                x, option, before = steps[s, t, e, :4], int(steps[s, t, e, 6]), steps[s, t, e, 7]
                now = v_high(x, before), q(x)[option]
                bootstrap = [v_high((answers["next_obs"][s, t, e] - mean) / std, option)] * 2
                done = answers["terminated"][s, t, e] + answers["truncated"][s, t, e] > 0
                if t + 1 < length and not done:  # both know their next state
                    after = steps[s, t + 1, e]
                    bootstrap = [v_high(after[:4], after[7]), q(after[:4])[int(after[6])]]
                go_on, reward = 1 - answers["terminated"][s, t, e], answers["reward"][s, t, e]
                deltas.append((*(reward + gamma * go_on * y - x for x, y in zip(now, bootstrap)), done, *now))
            for t in range(length):
                for mdp in (0, 1):
                    advantage, weight = 0, 1
                    for delta in deltas[t:]:
                        advantage, weight = advantage + weight * delta[mdp], weight * gamma * lam
                        if delta[2]:
                            break
                    close(rows[s, t, e, 10 + mdp], advantage[0], rtol=1e-6)
                    close(rows[s, t, e, 12 + mdp], advantage[0] + deltas[t][3 + mdp], rtol=1e-6)


def part_of(name):
    return next(part for part in ("master", "ends", "mean", "std", "qf") if f".{part}" in f".{name}")


def test_each_mdp_moves_its_own_policy_and_each_seed_has_its_own_turn():
    agent = make_agent(dac_ppo, num_envs=2).double()
    rows = agent.rollout(collect(agent, world())[0])[0]
    before = {name: p.clone() for name, p in agent.named_parameters()}
    figures = agent.update(rows, torch.tensor([True, False]).view(2, 1, 1))
    assert figures["losses/approx_kl"].abs().max() < 1e-12  # the densities are those of the rollout
    changed = {
        name: (p != before[name]).chunk(2) for name, p in agent.named_parameters() if "adam" not in name
    }
    moved = [{part_of(name) for name, x in changed.items() if x[s].any()} for s in (0, 1)]
    assert moved == [{"master", "ends", "qf"}, {"mean", "std", "qf"}]
    assert all(x.any() for x in changed["actor.ends.4.bias"][0]) and changed["actor.std"][1].all()


@pytest.mark.parametrize("ent_coef", [0.0, 0.01, 1.0])
def test_the_high_mdp_learns_as_ppo_does(ent_coef):
    agent = make_agent(dac_ppo, seeds=[0], num_envs=2, ent_coef=ent_coef, learning_rate=1e-2).double()
    rows = agent.rollout(collect(agent, world(seeds=1, length=40))[0])[0]
    twin, clipped = copy.deepcopy(agent), 0
    adam = torch.optim.Adam(twin.learning, 1e-2, eps=1e-5)
    for x in minibatches(rows, 20):
        agent.update(x, torch.ones(1, 1, 1).bool())
        obs, _, option, before, old, _, advantage, _, returns, _ = x[0].split((4, 2, *[1] * 8), -1)
        _, _, log_mu, ends = (y[0] for y in twin.actor(obs.unsqueeze(0)))
        each = zip(log_mu.exp(), ends.sigmoid(), before)
        pi = torch.stack([high_by_hand(mu, beta, int(o)) for mu, beta, o in each])
        ratio = pi.gather(-1, option.long()) / old.exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = torch.max(-ratio * advantage, -ratio.clamp(0.8, 1.2) * advantage).mean()
        value = (pi.detach() * twin.qf(obs.unsqueeze(0))[0]).sum(-1, keepdim=True)
        loss = policy_loss + 0.5 * nn.functional.mse_loss(value, returns) / 2
        loss = loss - ent_coef * D.Categorical(probs=pi).entropy().mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(twin.learning, 0.5)
        adam.step()
        clipped += ((ratio - 1).abs() > 0.2).sum()
    assert clipped > 20
    for (name, x), y in zip(agent.actor.named_parameters(), twin.actor.parameters()):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8, msg=name)
    close(agent.qf[4].weight, twin.qf[4].weight, rtol=1e-6, atol=1e-8)


def test_the_low_mdp_of_one_option_learns_as_ppo_does():
    agent = make_agent(dac_ppo, k=1, seeds=[0], num_envs=2, learning_rate=1e-2).double()
    rows = agent.rollout(collect(agent, world(seeds=1, length=40))[0])[0]
    mean, vf, std = network(agent.actor.mean, 0), network(agent.qf, 0), agent.actor.std[0, 0].detach().clone()
    clipped = 0
    parameters = [*mean.parameters(), *vf.parameters(), std.requires_grad_()]
    adam = torch.optim.Adam(parameters, 1e-2, eps=1e-5)
    for x in minibatches(rows, 20):
        agent.update(x, torch.zeros(1, 1, 1).bool())
        obs, action, _, _, _, old, _, advantage, _, returns = x[0].split((4, 2, *[1] * 8), -1)
        normal = D.Normal(mean(obs).tanh(), nn.functional.softplus(std))
        ratio = (normal.log_prob(action).sum(-1, keepdim=True) - old).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        loss = torch.max(-ratio * advantage, -ratio.clamp(0.8, 1.2) * advantage).mean()
        loss = loss + 0.5 * 0.5 * (vf(obs) - returns).square().mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 0.5)
        adam.step()
        clipped += ((ratio - 1).abs() > 0.2).sum()
    assert clipped > 20
    for i in (0, 2, 4):
        close(agent.actor.mean[i].weight[0].T, mean[i].weight, rtol=1e-6, atol=1e-8)
        close(agent.qf[i].weight[0].T, vf[i].weight, rtol=1e-6, atol=1e-8)
    close(agent.actor.std[0, 0], std, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("floor", [0.0, 1e-5])
def test_the_floor_kills_the_gradient_of_small_densities_and_none_changes_nothing(floor):
    agent = make_agent(dac_ppo, log_density_floor=floor).double()
    obs, option = torch.randn(2, 8, 4).double(), torch.randint(3, (2, 8, 1))
    policy = agent.actor(obs)
    means = policy[0]
    mean, log_std = (x.take_along_dim(option.unsqueeze(-1), 2).squeeze(2) for x in policy[:2])
    for distance in (0.5, 8.0):
        action = (mean + distance * log_std.exp()).detach()
        density = D.Independent(D.Normal(mean, log_std.exp()), 1).log_prob(action).exp().unsqueeze(-1)
        _, low, _ = agent.log_probs(policy, action, option, -torch.ones(2, 8, 1).double())
        close(low, (density + floor).log())
        plain, ours = (
            torch.autograd.grad(x.sum(), means, retain_graph=True)[0] for x in (density.log(), low)
        )
        plain, ours = (x.take_along_dim(option.unsqueeze(-1), 2).squeeze(2) for x in (plain, ours))
        assert (plain.abs() > 0.1).all()
        close(ours, plain * (density / (density + floor)).detach(), rtol=1e-6)
        assert (ours.abs() < 1e-9 * plain.abs()).all() == bool(floor and distance > 1)


def test_act_keeps_its_option_until_it_ends_and_begins_anew_without_one():
    agent, obs = make_agent(dac_ppo), torch.randn(2, 300, 4)
    actor = agent.actor
    actor.statistics.update(obs)

    def chosen(obs):
        """The options that the master likes best, and the action of the mean of those that `act` chose"""
        mean, _, log_mu, _ = actor(actor.statistics.normalize(obs))
        action = actor.act(obs)
        close(action, mean.take_along_dim(actor.option.unsqueeze(-1), 2).squeeze(2), rtol=1e-6)
        return log_mu.argmax(-1, keepdim=True), actor.option

    actor.ends[4].bias.data -= 100  # never ends
    actor.master[4].weight.data *= 300  # which likes another option elsewhere
    first, option = chosen(obs)
    assert torch.equal(first, option) and len(option.unique()) > 1
    other = obs.flip(1)
    assert not torch.equal(chosen(other)[0], first) and torch.equal(actor.option, first)
    actor.ends[4].bias.data += 200  # ends at once
    liked, option = chosen(other)
    assert torch.equal(liked, option)
    actor.ends[4].bias.data -= 200
    actor.option = None
    liked, option = chosen(obs)
    assert torch.equal(liked, option)


@pytest.mark.parametrize("env_id", ["ToyTerminates-v0", "ToyTruncates-v0"])
def test_every_episode_begins_without_an_option_in_a_real_run(tmp_path, monkeypatch, env_id):
    rollouts, options = [], []
    rollout, evaluate = dac_ppo.Agent.rollout, dac_ppo.Envs.evaluate

    def spy(agent, steps):
        obs, _, option, before, log_high, _ = steps.flatten(1, 2)[..., :9].split((3 - 1, 2, 1, 1, 1, 2), -1)
        _, _, log_mu, ends = agent.actor(obs)
        expected = dac_ppo.high_log_prob(log_mu, ends, before).gather(-1, option.long())
        expected = torch.where(before < 0, log_mu.gather(-1, option.long()), expected)
        close(log_high, expected, rtol=1e-4, atol=1e-5)
        rollouts.append(steps[..., 4:6])
        return rollout(agent, steps)

    def note(envs, act, seeds, step):
        options.append(act.__self__.option)
        return evaluate(envs, act, seeds, step)

    monkeypatch.setattr(dac_ppo.Agent, "rollout", spy)
    monkeypatch.setattr(dac_ppo.Envs, "evaluate", note)
    fields = {"num_envs": 3, "num_seeds": 2, "num_steps": 14, "minibatch_size": 7, "update_epochs": 1}
    fields |= {"total_timesteps": 84, "eval_every": 42, "eval_episodes": 2, "compile": "off", "k": 3}
    dac_ppo.train(dac_ppo.Args(env_id=env_id, run_dir=str(tmp_path), **fields))
    option, before = torch.cat(rollouts, 1).unbind(-1)  # (S, 28, E); episodes are of 5 steps
    start = torch.arange(28) % 5 == 0
    assert (before[:, start] == -1).all()
    assert torch.equal(before[:, 1:][:, ~start[1:]], option[:, :-1][:, ~start[1:]])
    assert option.unique().tolist() == [0, 1, 2]
    assert options == [None, None]  # each evaluation begins anew
