"""Trains Stable-Baselines3's SAC and PPO as pmoe trains its own, for one table and figure of both.

    pip install -e ".[bench]"
    pmoe grid grids/soundness.toml                      # pmoe's runs, into runs/
    for env in Hopper-v4 Walker2d-v4 HalfCheetah-v4; do
      for algo in sac ppo; do python benchmarks/soundness.py --algo $algo --env $env; done
    done
    pmoe plot runs/*/*sac* --auc --reference sb3-sac --out figures-sac
    pmoe plot runs/*/*ppo* --auc --reference sb3-ppo --out figures-ppo

It leaves run directories like pmoe's, RUN_DIR/ENV/sb3-ALGO-k1/seedN, so that `pmoe plot`, `pmoe export` and
`pmoe status` read them. A finished run of as many steps is skipped. Settings are the defaults of
Stable-Baselines3, with PPO's observations and rewards normalised by VecNormalize; grids/soundness.toml has
pmoe's counterparts. As there, the deterministic policy is evaluated every 10,000 steps, in its own
environments, and PPO waits for the end of a rollout and its update.

What still differs: PPO's last rollout is whole here, so that it makes 200,704 steps; SAC's log sigma is
clipped to [-20, 2] here, and bounded by a tanh to [-5, 2] in pmoe.
"""

import csv
import json
import time
import warnings
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from pmoe.envs.suites import version_of

PACKAGES = ("stable_baselines3", "torch", "gymnasium", "mujoco", "numpy")


@dataclass
class Args:
    algo: Literal["sac", "ppo"] = "sac"
    env: str = "Hopper-v4"  # Gymnasium environment
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)  # one after the other
    total_timesteps: int = 200_000
    eval_every: int = 10_000
    eval_episodes: int = 10
    threads: int = 1  # of torch
    run_dir: Path = Path("runs")


class Evaluations(BaseCallback):
    """Writes eval.csv: the mean action's returns, each time that a number of steps is reached."""

    def __init__(self, args: Args, seed: int, file: Path):
        super().__init__()
        self.args = args
        self.file = file
        self.due = args.eval_every
        self.returns = np.empty(0)
        self.env = environments(args, seed + 10_000, training=False)

    def _on_training_start(self) -> None:
        with open(self.file, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(["step", "return_mean", "return_std", "episodes"])

    def _on_rollout_start(self) -> None:
        """After an update, or before the first"""
        if self.num_timesteps >= self.due:
            self.evaluate()
            self.due = (self.num_timesteps // self.args.eval_every + 1) * self.args.eval_every

    def _on_training_end(self) -> None:
        if self.num_timesteps >= self.due:
            self.evaluate()

    def _on_step(self) -> bool:
        return True

    def evaluate(self) -> None:
        if isinstance(self.env, VecNormalize):
            self.env.obs_rms = deepcopy(self.training_env.obs_rms)
        returns, _ = evaluate_policy(
            self.model, self.env, self.args.eval_episodes, deterministic=True, return_episode_rewards=True
        )
        self.returns = np.array(returns)
        row = [self.num_timesteps, self.returns.mean(), self.returns.std(), len(returns)]
        with open(self.file, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


def environments(args: Args, seed: int, training: bool = True) -> VecEnv:
    """One environment; of PPO with running statistics, which an evaluation takes from training"""
    env = DummyVecEnv([lambda: Monitor(gym.make(args.env))])
    env.seed(seed)
    if args.algo == "sac":
        return env
    return VecNormalize(env, training=training, norm_reward=training)


def train(args: Args, seed: int) -> None:
    path = args.run_dir / args.env / f"sb3-{args.algo}-k1" / f"seed{seed}"
    if finished(path, args.total_timesteps):
        print(f"{path} is there already")
        return
    algorithm = {"sac": SAC, "ppo": PPO}[args.algo]
    model = algorithm("MlpPolicy", environments(args, seed), seed=seed, device="cpu")
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config(args, seed, model), indent=2))

    evaluations = Evaluations(args, seed, path / "eval.csv")
    began = time.perf_counter()
    model.learn(args.total_timesteps, callback=evaluations)

    returns = evaluations.returns
    done = {"step": model.num_timesteps, "return_mean": returns.mean(), "return_std": returns.std()}
    done |= {"episodes": len(returns), "wall_time": time.perf_counter() - began}
    (path / "done.json").write_text(json.dumps(done, indent=2))
    print(f"{path}: {returns.mean():.1f} after {done['wall_time']:.0f} s")


def finished(path: Path, total_timesteps: int) -> bool:
    """Whether a run of as many steps is there"""
    if not (path / "done.json").exists():
        return False
    return json.loads((path / "config.json").read_text())["args"]["total_timesteps"] == total_timesteps


def config(args: Args, seed: int, model: SAC | PPO) -> dict:
    """config.json, with what `pmoe plot` looks for in it"""
    options = {name: value for name, value in asdict(args).items() if name not in ("algo", "env", "seeds")}
    options |= {"env_id": args.env, "k": 1, "seed": seed, "run_dir": str(args.run_dir), "tag": ""}
    options |= {"learning_rate": model.learning_rate, "batch_size": model.batch_size, "gamma": model.gamma}
    if isinstance(model, PPO):
        options["num_steps"] = model.n_steps  # by it `pmoe plot` tells the families apart
    versions = {package: version_of(package) for package in PACKAGES}
    return {"algo": f"sb3-{args.algo}", "device": "cpu", "versions": versions, "args": options}


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        train(args, seed)


if __name__ == "__main__":
    main()
