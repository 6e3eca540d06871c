"""The compiled update is the one that is written, as far as arithmetic goes; and its runs stop and go on."""

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

from pmoe.pmoe_sac import Agent, Args, Batch, Philox


def can_compile() -> bool:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    header = Path(sysconfig.get_path("include"), "Python.h")
    return compiler is not None and header.exists()


compiles = pytest.mark.skipif(not can_compile(), reason="no C++ compiler, or no Python.h")


@pytest.fixture
def compiled():
    """torch.compile as a run has it"""
    torch._dynamo.reset()
    torch._dynamo.config.trace_autograd_ops = True

    def compile_whole(function, **options):
        return torch.compile(function, fullgraph=True, dynamic=False, options=options)

    return compile_whole


def sac_data(agent, i) -> tuple:
    """The i-th arguments of `update`"""
    batch = sac_batch(seeds=2, seed=i, dtype=agent.temperature.log_alpha.dtype)
    return batch, *sac_noise(agent, 64, i)


def ppo_data(agent, i) -> tuple:
    normal, _ = ppo_noise(agent, 32, i)
    return ppo_batch(agent, 32, i), normal


def same_states(agent, other, **tolerance) -> None:
    state = other.state_dict()
    for name, x in agent.state_dict().items():
        torch.testing.assert_close(x, state[name], msg=name, **tolerance)


def action_of(drawn) -> torch.Tensor:
    """What `draw` of either family gives: SAC's action comes first, PPO's has a name."""
    return getattr(drawn, "action", drawn[0])


SAC = (sac_agent, sac_data, sac_noise)
PPO = (ppo_agent, ppo_data, ppo_noise)
ALL = {"k": 3, "backprop": "all", "alpha": "auto", "entropy": "mixture"}
KL = {"k": 3, "target_kl": 0.02, "ent_coef": 0.1}


@compiles
@pytest.mark.parametrize(
    "family, fields",
    [(SAC, {"k": 1}), (SAC, ALL), (PPO, KL)],
    ids=["sac, one primitive", "sac, everything", "ppo"],
)
def test_compiled_is_as_written(compiled, family, fields):
    make_agent, data, noise = family
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(2, 1, 4, generator=generator).double()
    for _ in range(2):  # the second pair of agents finds the graph of the first
        eager = make_agent(**fields).double()
        agent = make_agent(**fields).double()
        update = compiled(agent.update)
        draw = compiled(agent.draw)
        before = action_of(draw(obs, *noise(agent, 1))).clone()
        eager.draw(obs, *noise(agent, 1))  # PPO's remembers what it has seen
        for i in range(60):
            expected = eager.update(*data(eager, i))
            figures = update(*data(agent, i))
        torch.testing.assert_close(figures, expected, rtol=1e-6, atol=1e-9)
        same_states(eager, agent, rtol=1e-6, atol=1e-9)

        # Actions follow what was learnt.
        after = draw(obs, *noise(agent, 1))
        torch.testing.assert_close(after, eager.draw(obs, *noise(agent, 1)))
        moved = (action_of(after) - before).abs()
        assert (moved > 0.01).any(-1).all()


@compiles
def test_compiled_is_as_written_in_float32(compiled):
    eager = sac_agent(k=3)
    agent = sac_agent(k=3)
    update = compiled(agent.update)
    for i in range(20):
        eager.update(*sac_data(eager, i))
        update(*sac_data(agent, i))
    same_states(eager, agent, rtol=1e-3, atol=1e-4)


def on_gpu(tensors) -> list:
    return [x.cuda() for x in tensors]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_as_a_cuda_graph_it_is_as_written(compiled):
    def gpu_agent():
        fields = {**SHORT["sac"], "k": 3}
        return Agent(Args(**fields), 4, 2, Philox(range(2), "cuda"))

    eager = gpu_agent()
    agent = gpu_agent()
    options = {"triton.cudagraphs": True}
    update = compiled(agent.update, **options)
    draw = compiled(agent.draw, **options)
    obs = sac_batch(seeds=2, size=1).obs.cuda()
    one = on_gpu(sac_noise(eager, 1))
    before = None
    for i in range(200):
        batch = Batch(*on_gpu(sac_batch(seeds=2, seed=i)))
        noise = on_gpu(sac_noise(eager, 64, i))
        eager.update(batch, *noise)
        update(batch, *noise)
        action, _ = draw(obs, *one)
        action = action.clone()
        if before is None:
            before = action
    # What acts is what was learnt.
    moved = (action - before).abs()
    assert (moved > 0.01).any(-1).all()
    expected, _ = agent.draw(obs, *one)
    torch.testing.assert_close(action, expected)
    same_states(eager, agent, rtol=1e-2, atol=1e-2)


def last_step(run_dir) -> int:
    """The step of the newest checkpoint below"""
    files = run_dir.glob("*/*/*/checkpoint/[0-9]*.pt")
    return max((int(file.stem) for file in files), default=0)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_a_compiled_run_killed_and_resumed_is_as_never_stopped(tmp_path, algo):
    fields = {"total_timesteps": 300, "checkpoint_every": 10, "num_seeds": 2, "compile": "on"}
    command = [PMOE, "run", algo, *flags(algo, env_id="Hopper-v4", **fields)]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL}
    subprocess.run([*command, "--run-dir", "straight"], check=True, **quiet)

    command += ["--run-dir", "killed"]
    process = subprocess.Popen(command, **quiet)
    while process.poll() is None and last_step(tmp_path / "killed") < 100:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert last_step(tmp_path / "killed") < 300
    subprocess.run([*command, "--resume"], check=True, **quiet)
    same_runs(tmp_path / "straight", tmp_path / "killed", seeds=2)


def test_without_a_compiler_a_run_goes_on_uncompiled(tmp_path, monkeypatch, capsys, loop):
    monkeypatch.setenv("CXX", "nonexistent")
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("there is no compiler"))
    (path,) = train(loop, tmp_path, compile="on", total_timesteps=120)
    assert (path / "done.json").exists()
    assert (
        "not compiled, and therefore slower: a C++ compiler or Python.h is missing" in capsys.readouterr().out
    )


@compiles
@pytest.mark.parametrize("how", ["graph", "on", "off"])
def test_a_run_compiles_its_update_and_its_actions_whole(tmp_path, monkeypatch, capsys, loop, how):
    calls = {}

    def compile_nothing(function, **options):
        calls[function.__name__] = options
        return function

    monkeypatch.setattr(torch, "compile", compile_nothing)
    train(loop, tmp_path, compile=how, total_timesteps=120, eval_episodes=1)
    says_so = "compiling at the first update" in capsys.readouterr().out
    if how == "off":
        assert calls == {}
        assert not says_so
        return
    assert says_so
    # PPO's family stays on the CPU.
    graph = how == "graph" and torch.cuda.is_available() and loop == "sac"
    options = {"fullgraph": True, "dynamic": False, "options": {"triton.cudagraphs": graph}}
    names = {"sac": ("act", "learn"), "ppo": ("draw", "learn"), "dac": ("draw", "update")}
    assert calls == dict.fromkeys(names[loop], options)
