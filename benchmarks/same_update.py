"""Do pmoe's PPO and SAC (K = 1) learn from the same data what Stable-Baselines3's learn from it?

    pip install -e ".[bench]"
    python benchmarks/same_update.py

Stable-Baselines3's networks, a rollout or batches of a replay, the order of the minibatches and the random
numbers go into pmoe's agent, too. Both then train, each with its own densities, losses, clipping, Adam and
target networks. The table has the largest difference over the states, and how far training has moved what it
compares. In SAC rounding grows: the difference begins at 1e-7, and is 0.01 after 300 updates.

SAC's log sigma is clipped to [-20, 2] there and bounded by a tanh to [-5, 2] here. For this comparison alone,
Stable-Baselines3 gets the tanh.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor

from pmoe import pmoe_ppo, pmoe_sac
from pmoe.plots.tables import write_csv


@dataclass
class Args:
    env: str = "Hopper-v4"  # Gymnasium environment
    updates: int = 10  # of SAC; PPO makes a training phase of 320
    seed: int = 1
    out: Path | None = None  # also write the table to this CSV file


@torch.no_grad()
def copy_layer(theirs: Any, ours: Any, index: int = 0) -> None:
    """One torch.nn.Linear into one of our layers side by side"""
    ours.weight[index].copy_(theirs.weight.mT)
    ours.bias[index].copy_(theirs.bias.unsqueeze(0))


def difference(a: Tensor, b: Tensor) -> float:
    return (a.flatten() - b.flatten()).abs().max().item()


Row = dict[str, Any]  # algo, what, updates, difference, moved


# PPO


def ppo_agents(args: Args) -> tuple[PPO, pmoe_ppo.Agent]:
    """Both with the same networks; Stable-Baselines3's after three rollouts, with one more to learn from"""
    env = VecNormalize(DummyVecEnv([lambda: gym.make(args.env)]))
    model = PPO("MlpPolicy", env, seed=args.seed, device="cpu")
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(10**6)
    for _ in range(3):
        model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps)
        model.train()
    model.collect_rollouts(env, callback, model.rollout_buffer, model.n_steps)
    # Both begin with an Adam that has seen nothing.
    model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), 3e-4, eps=1e-5)

    # Half of the squared error has a weight of 1 here, which is 0.5 of the whole there.
    options = pmoe_ppo.Args(env_id=args.env, k=1, networks="separate", vf_coef=1.0)
    sizes = (env.observation_space.shape[0], env.action_space.shape[0])
    agent: Any = pmoe_ppo.Agent(options, *sizes, pmoe_ppo.Philox([0]))
    policy: Any = model.policy
    copy_layer(policy.mlp_extractor.policy_net[0], agent.actor.fc1)
    copy_layer(policy.mlp_extractor.policy_net[2], agent.actor.fc2)
    copy_layer(policy.action_net, agent.actor.mean)
    agent.actor.log_std.data.copy_(policy.log_std.data.view_as(agent.actor.log_std))
    copy_layer(policy.mlp_extractor.value_net[0], agent.vf[0])
    copy_layer(policy.mlp_extractor.value_net[2], agent.vf[2])
    copy_layer(policy.value_net, agent.vf[4])
    return model, agent


def rollout_of(model: PPO) -> dict[str, Tensor]:
    """The steps (T, .) of a rollout, and what Stable-Baselines3 makes of it"""
    buffer: Any = model.rollout_buffer
    names = ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns")
    steps = {name: torch.from_numpy(getattr(buffer, name)).float().flatten(0, 1) for name in names}
    ends: Any = [*buffer.episode_starts[1:], model._last_episode_starts]
    steps["done"] = torch.from_numpy(np.array(ends, np.float32)).flatten()
    with torch.no_grad():
        last = model.policy.predict_values(torch.from_numpy(model._last_obs).float())
    steps["next_values"] = torch.cat([steps["values"][1:], last.flatten()])
    return steps


def compare_ppo(args: Args) -> list[Row]:
    model, agent = ppo_agents(args)
    steps = rollout_of(model)
    obs = steps["observations"].unsqueeze(0)
    action = steps["actions"].unsqueeze(0)

    @torch.no_grad()
    def outputs() -> dict[str, tuple[Tensor, Tensor]]:
        """Of the rollout's states, here and there"""
        mean, _, _ = agent.actor(obs)
        policy: Any = model.policy
        return {
            "mean action": (mean, policy.get_distribution(obs[0]).mode()),
            "V(s)": (agent.vf(obs), policy.predict_values(obs[0])),
        }

    # The same rollout; its rewards hold what follows a time limit already.
    primitive = torch.zeros_like(action[..., :1])
    with torch.no_grad():
        log_prob = agent.log_prob(action, primitive, *agent.actor(obs))
    reward, value, next_value, done = [
        steps[name].view(1, -1, 1, 1) for name in ("rewards", "values", "next_values", "done")
    ]
    advantage = pmoe_ppo.gae(reward, value, next_value, done, done, model.gamma, model.gae_lambda)
    returns = advantage + value
    given = {
        "log pi(a|s)": (log_prob, steps["log_probs"]),
        "advantage": (advantage, steps["advantages"]),
        "return": (returns, steps["returns"]),
    }
    rows: list[Row] = [
        {"algo": "PPO", "what": name, "updates": 0, "difference": difference(ours, theirs), "moved": 0.0}
        for name, (ours, theirs) in given.items()
    ]

    # The same minibatches
    generator = np.random.default_rng(args.seed)
    orders = [generator.permutation(model.n_steps) for _ in range(model.n_epochs)]
    before = outputs()
    with mock.patch("numpy.random.permutation", side_effect=orders):
        model.train()
    column = [x.flatten().view(1, -1, 1) for x in (log_prob, advantage, returns)]
    batch = pmoe_ppo.Batch(obs, action, primitive, *column)
    updates = 0
    for order in orders:
        for index in np.split(order, len(order) // model.batch_size):
            minibatch = pmoe_ppo.Batch(*[field[:, index] for field in batch])
            agent.update(minibatch, torch.zeros(1, model.batch_size, 1, action.shape[-1]))
            updates += 1
    return rows + changes("PPO", updates, before, outputs())


# SAC


def sac_agents(args: Args) -> tuple[SAC, pmoe_sac.Agent]:
    """Both with the same networks, and a replay of 1,000 random steps"""
    model = SAC("MlpPolicy", gym.make(args.env), learning_starts=1000, seed=args.seed, device="cpu")
    model.learn(1000)
    model.set_logger(Logger(None, []))
    actor: Any = model.actor

    def bounded(obs: Tensor) -> tuple[Tensor, Tensor, dict]:
        """Mean and log sigma as there, but for the bounds of log sigma"""
        x = actor.latent_pi(obs.float())
        return actor.mu(x), -5 + 3.5 * (actor.log_std(x).tanh() + 1), {}

    actor.get_action_dist_params = bounded

    options = pmoe_sac.Args(env_id=args.env, k=1, alpha="auto", learning_rate=3e-4, batch_size=256)
    sizes = (model.observation_space.shape[0], model.action_space.shape[0])
    agent: Any = pmoe_sac.Agent(options, *sizes, pmoe_sac.Philox([0]))
    copy_layer(actor.latent_pi[0], agent.actor.fc1)
    copy_layer(actor.latent_pi[2], agent.actor.fc2)
    both = agent.actor.mean_log_std
    with torch.no_grad():
        both.weight[0].copy_(torch.cat([actor.mu.weight, actor.log_std.weight]).mT)
        both.bias[0, 0].copy_(torch.cat([actor.mu.bias, actor.log_std.bias]))
    for critic, ours in ((model.critic, agent.qf), (model.critic_target, agent.qf_target)):
        for i, network in enumerate(critic.q_networks):
            copy_layer(network[0], ours.fc1, i)
            copy_layer(network[2], ours.fc2, i)
            copy_layer(network[4], ours.fc3, i)
    return model, agent


def compare_sac(args: Args) -> list[Row]:
    model, agent = sac_agents(args)
    samples: list[Any] = [model.replay_buffer.sample(256) for _ in range(args.updates)]
    size = samples[0].actions.shape
    generator = torch.Generator().manual_seed(args.seed)
    noise = [torch.randn(size, generator=generator) for _ in range(2 * args.updates)]
    obs = samples[0].observations.float()
    action = samples[0].actions

    @torch.no_grad()
    def outputs() -> dict[str, tuple[Tensor, Tensor]]:
        """Of the first batch's states, here and there"""
        q = agent.qf(obs.unsqueeze(0), action.view(1, len(obs), 1, -1))
        target = agent.qf_target(obs.unsqueeze(0), action.view(1, len(obs), 1, -1))
        log_alpha: Any = model.log_ent_coef
        return {
            "mean action": (agent.actor.act(obs.unsqueeze(0)), model.actor(obs, deterministic=True)),
            "Q(s, a)": (q, torch.stack(model.critic(obs, action))),
            "target Q(s, a)": (target, torch.stack(model.critic_target(obs, action))),
            "alpha": (agent.temperature(), log_alpha.exp()),
        }

    before = outputs()
    # Stable-Baselines3 draws for the policy first, and then for the next states.
    with (
        mock.patch.object(model.replay_buffer, "sample", side_effect=samples),
        mock.patch("torch.distributions.normal._standard_normal", side_effect=noise),
    ):
        model.train(args.updates, 256)
    for sample, of_policy, of_next in zip(samples, noise[::2], noise[1::2]):
        fields = (sample.observations, sample.actions, sample.next_observations, sample.rewards, sample.dones)
        batch = pmoe_sac.Batch(*[field.float().unsqueeze(0) for field in fields])
        both = torch.cat([of_next, of_policy]).view(1, 2 * len(obs), 1, -1)
        agent.update(batch, both, torch.zeros(1, 2 * len(obs), 1))
    return changes("SAC", args.updates, before, outputs())


def changes(algo: str, updates: int, before: dict, after: dict) -> list[Row]:
    """What training has made of the same networks"""
    rows: list[Row] = []
    for name, (ours, theirs) in after.items():
        _, earlier = before[name]
        row: Row = {"algo": algo, "what": name, "updates": updates}
        rows.append(row | {"difference": difference(ours, theirs), "moved": difference(theirs, earlier)})
    return rows


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    warnings.filterwarnings("ignore")
    rows = compare_ppo(args) + compare_sac(args)
    table = Table("", "", "updates", "largest difference", "training moved it by", title=args.env)
    for row in rows:
        moved = f"{row['moved']:.2g}" if row["updates"] else ""
        table.add_row(row["algo"], row["what"], str(row["updates"]), f"{row['difference']:.1e}", moved)
    Console().print(table)
    if args.out:
        write_csv(args.out, rows)


if __name__ == "__main__":
    main()
