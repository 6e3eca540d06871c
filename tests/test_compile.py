"""The compiled update is the one that is written: in its arithmetic, and in runs that stop and go on."""

import os
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest
import torch
from common import PMOE, SHORT, flags, sac_agent, sac_batch, sac_noise, same_runs, train
from ppo_agents import ppo_agent, ppo_batch, ppo_noise

from pmoe import pmoe_sac


def has_tools() -> bool:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return bool(compiler) and headers.exists()


compiles = pytest.mark.skipif(not has_tools(), reason="no C++ compiler, or no Python.h")


@pytest.fixture
def compiled():
    """torch.compile as a run has it"""
    torch._dynamo.reset()
    torch._dynamo.config.trace_autograd_ops = True

    def compile_whole(function, **options):
        return torch.compile(function, fullgraph=True, dynamic=False, options=options)

    return compile_whole


class Sac:
    """What the tests ask of pmoe_sac.py: an agent, what its update and draws take, and the action drawn"""

    agent = staticmethod(sac_agent)
    noise = staticmethod(sac_noise)

    @staticmethod
    def data(agent, seed) -> tuple:
        batch = sac_batch(seeds=2, seed=seed, dtype=agent.log_alpha.dtype)
        return batch, *sac_noise(agent, 64, seed)

    @staticmethod
    def action(drawn) -> torch.Tensor:
        action, _ = drawn
        return action


class Ppo:
    """The same of pmoe_ppo.py"""

    agent = staticmethod(ppo_agent)
    noise = staticmethod(ppo_noise)

    @staticmethod
    def data(agent, seed) -> tuple:
        normal, _ = ppo_noise(agent, 32, seed)
        return ppo_batch(agent, seed=seed), normal

    @staticmethod
    def action(drawn) -> torch.Tensor:
        return drawn.action


def same_states(agent, other, **tolerance):
    state = other.state_dict()
    assert state.keys() == agent.state_dict().keys()
    for name, x in agent.state_dict().items():
        torch.testing.assert_close(x, state[name], msg=name, **tolerance)


ALL = {"k": 3, "backprop": "all", "alpha": "auto", "entropy": "mixture"}
KL = {"k": 3, "target_kl": 0.02, "ent_coef": 0.1}
CASES = [(Sac, {"k": 1}), (Sac, ALL), (Ppo, KL)]


@compiles
@pytest.mark.parametrize("algo, fields", CASES, ids=["sac", "sac, all", "ppo"])
def test_compiled_is_as_written(compiled, algo, fields):
    for _ in range(2):  # the second pair of agents finds the graph of the first
        eager = algo.agent(**fields).double()
        agent = algo.agent(**fields).double()
        update = compiled(agent.update)
        draw = compiled(agent.draw)
        generator = torch.Generator().manual_seed(0)
        obs = torch.randn(2, 1, 4, generator=generator).double()
        noise = algo.noise(agent, 1)
        before = algo.action(draw(obs, *noise)).clone()
        # For what it remembers of it
        eager.draw(obs, *noise)
        for seed in range(60):
            expected = eager.update(*algo.data(eager, seed))
            figures = update(*algo.data(agent, seed))
        torch.testing.assert_close(figures, expected, rtol=1e-6, atol=1e-9)
        same_states(agent, eager, rtol=1e-6, atol=1e-9)

        # Actions follow what was learnt.
        after = draw(obs, *noise)
        torch.testing.assert_close(after, eager.draw(obs, *noise))
        moved = (algo.action(after) - before).abs() > 0.01
        assert moved.flatten(1).any(-1).all()


@compiles
def test_compiled_is_as_written_in_float32(compiled):
    eager = sac_agent(k=3)
    agent = sac_agent(k=3)
    update = compiled(agent.update)
    for seed in range(20):
        eager.update(*Sac.data(eager, seed))
        update(*Sac.data(agent, seed))
    same_states(agent, eager, rtol=1e-3, atol=1e-4)


def on_gpu(*tensors) -> list[torch.Tensor]:
    return [x.cuda() for x in tensors]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_as_a_cuda_graph_it_is_as_written(compiled):
    agents = []
    for _ in range(2):
        generators = [torch.Generator("cuda").manual_seed(seed) for seed in range(2)]
        args = pmoe_sac.Args(**{**SHORT["sac"], "k": 3})
        agents.append(pmoe_sac.Agent(args, 4, 2, generators))
    eager, agent = agents
    update = compiled(agent.update, **{"triton.cudagraphs": True})
    draw = compiled(agent.draw, **{"triton.cudagraphs": True})
    (obs,) = on_gpu(sac_batch(seeds=2, size=1).obs)
    noise = on_gpu(*sac_noise(eager, 1))
    actions = []
    for seed in range(200):
        batch = pmoe_sac.Batch(*on_gpu(*sac_batch(seeds=2, seed=seed)))
        normal, uniform = on_gpu(*sac_noise(eager, 64, seed))
        eager.update(batch, normal, uniform)
        update(batch, normal, uniform)
        action, _ = draw(obs, *noise)
        # A graph's next call writes to the same place.
        actions.append(action.clone())
    # What acts is what was learnt.
    moved = (actions[-1] - actions[0]).abs() > 0.01
    assert moved.flatten(1).any(-1).all()
    expected, _ = agent.draw(obs, *noise)
    torch.testing.assert_close(actions[-1], expected)
    same_states(agent, eager, rtol=1e-2, atol=1e-2)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_a_compiled_run_killed_and_resumed_is_as_never_stopped(tmp_path, algo):
    fields = {"total_timesteps": 300, "checkpoint_every": 10, "num_seeds": 2, "compile": "on"}
    command = [PMOE, "run", algo, *flags(algo, env_id="Hopper-v4", **fields)]
    straight = tmp_path / "straight"
    killed = tmp_path / "killed"
    subprocess.run([*command, "--run-dir", straight], check=True, stdout=subprocess.DEVNULL)
    command += ["--run-dir", killed]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and last_step(killed) < 100:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert last_step(killed) < 300
    subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL)
    same_runs(straight, killed, seeds=2)


def last_step(run_dir) -> int:
    """Of the newest checkpoint below a --run-dir"""
    files = run_dir.glob("*/*/*/checkpoint/*.pt")
    return max((int(file.stem) for file in files), default=0)


def test_without_a_compiler_a_run_goes_on_uncompiled(tmp_path, monkeypatch, loop):
    monkeypatch.setenv("CXX", "nonexistent")
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("there is no compiler"))
    (path,) = train(loop, tmp_path, compile="on", total_timesteps=120)
    assert (path / "done.json").exists()


@compiles
@pytest.mark.parametrize("how", ["graph", "on", "off"])
def test_a_run_compiles_its_update_and_its_actions_whole(tmp_path, monkeypatch, loop, how):
    calls = {}

    def look(function, **options):
        calls[function.__name__] = options
        return function

    monkeypatch.setattr(torch, "compile", look)
    train(loop, tmp_path, compile=how, total_timesteps=120, eval_episodes=1)
    if how == "off":
        assert calls == {}
        return
    # PPO's family stays on the CPU.
    graph = how == "graph" and torch.cuda.is_available() and loop == "sac"
    options = {"fullgraph": True, "dynamic": False, "options": {"triton.cudagraphs": graph}}
    assert calls == {"update": options, "draw": options}
