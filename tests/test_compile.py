"""The compiled update is the one that is written: as far as arithmetic goes, and in runs that stop and go on."""

import subprocess
import time

import numpy as np
import pytest
import test_ppo
import torch
from common import PMOE, SHORT, flags, same_runs, train
from test_policy import make_agent, noise
from test_update import batch

from pmoe import pmoe_sac
from pmoe.pmoe_sac import Args


def has_tools() -> bool:
    compiler = pmoe_sac.shutil.which(pmoe_sac.os.environ.get("CXX", "g++"))
    return compiler and pmoe_sac.Path(pmoe_sac.sysconfig.get_path("include"), "Python.h").exists()


compiles = pytest.mark.skipif(not has_tools(), reason="no C++ compiler, or no Python.h")


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    torch._dynamo.config.trace_autograd_ops = True
    return lambda f, **options: torch.compile(f, fullgraph=True, dynamic=False, options=options)


def sac_data(agent, i):
    return [x.to(agent.actor.scale.dtype) for x in (*batch(seeds=2, seed=i), *noise(agent, 64, i))]


def ppo_data(agent, i):
    return test_ppo.batch(agent, seed=i), test_ppo.noise(agent, 32, i)[0]


def same_states(a, b, **tolerance):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, msg=name, **tolerance)


MADE = {"sac": (make_agent, sac_data, noise), "ppo": (test_ppo.make_agent, ppo_data, test_ppo.noise)}
ALL = {"k": 3, "backprop": "all", "alpha": "auto", "entropy": "mixture"}
KL = {"k": 3, "target_kl": 0.02, "ent_coef": 0.1}


@compiles
@pytest.mark.parametrize("algo, fields", [("sac", {"k": 1}), ("sac", ALL), ("ppo", KL)], ids=str)
def test_compiled_is_as_written(compiled, algo, fields):
    make, data, noise = MADE[algo]
    for _ in range(2):  # the second pair of agents finds the graph of the first
        eager, agent = (make(**fields).double() for _ in range(2))
        update, draw = compiled(agent.update), compiled(agent.draw)
        obs = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0)).double()
        before = draw(obs, *noise(agent, 1))[0].clone()
        eager.draw(obs, *noise(agent, 1))  # for what it remembers of it
        for i in range(60):
            figures = eager.update(*data(eager, i)), update(*data(agent, i))
        torch.testing.assert_close(*figures, rtol=1e-6, atol=1e-9)
        same_states(eager, agent, rtol=1e-6, atol=1e-9)
        after = draw(obs, *noise(agent, 1))  # actions follow what was learnt
        torch.testing.assert_close(after, eager.draw(obs, *noise(agent, 1)))
        assert ((after[0] - before).abs() > 0.01).any(-1).all()


@compiles
def test_compiled_is_as_written_in_float32(compiled):
    eager, agent = (make_agent(k=3) for _ in range(2))
    update = compiled(agent.update)
    for i in range(20):
        eager.update(*sac_data(eager, i)), update(*sac_data(agent, i))
    same_states(eager, agent, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_as_a_cuda_graph_it_is_as_written(compiled):
    generators = [[torch.Generator("cuda").manual_seed(seed) for seed in range(2)] for _ in range(2)]
    bounds = np.float32([-2.0, 0.5]), np.float32([1.0, 1.5])
    eager, agent = (pmoe_sac.Agent(Args(**SHORT["sac"] | {"k": 3}), 4, *bounds, g) for g in generators)
    update, draw = (compiled(f, **{"triton.cudagraphs": True}) for f in (agent.update, agent.draw))
    obs, before = batch(seeds=2, size=1)[0].cuda(), None
    for i in range(200):
        data = [x.cuda() for x in (*batch(seeds=2, seed=i), *noise(eager, 64, i))]
        eager.update(*data), update(*data)
        action = draw(obs, *(x.cuda() for x in noise(eager, 1)))[0].clone()
        before = action if before is None else before
    assert ((action - before).abs() > 0.01).any(-1).all()  # what acts is what was learnt
    torch.testing.assert_close(action, agent.draw(obs, *(x.cuda() for x in noise(eager, 1)))[0])
    same_states(eager, agent, rtol=1e-2, atol=1e-2)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_a_compiled_run_killed_and_resumed_is_as_never_stopped(tmp_path, algo):
    fields = {"total_timesteps": 300, "checkpoint_every": 10, "num_seeds": 2, "compile": "on"}
    command = [PMOE, "run", algo, *flags(algo, env_id="Hopper-v4", **fields)]
    subprocess.run([*command, "--run-dir", "straight"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    command += ["--run-dir", "killed"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    while process.poll() is None and last_step(tmp_path / "killed") < 100:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert last_step(tmp_path / "killed") < 300
    subprocess.run([*command, "--resume"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    same_runs(tmp_path / "straight", tmp_path / "killed", seeds=2)


def last_step(run_dir):
    return max((int(file.stem) for file in run_dir.glob("*/*/*/checkpoint/*.pt")), default=0)


def test_without_a_compiler_a_run_goes_on_uncompiled(tmp_path, monkeypatch, loop):
    monkeypatch.setenv("CXX", "nonexistent")
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("there is no compiler"))
    (path,) = train(loop, tmp_path, compile="on", total_timesteps=120)
    assert (path / "done.json").exists()


@compiles
@pytest.mark.parametrize("how", ["graph", "on", "off"])
def test_a_run_compiles_its_update_and_its_actions_whole(tmp_path, monkeypatch, loop, how):
    calls = {}
    monkeypatch.setattr(torch, "compile", lambda f, **options: calls.setdefault(f.__name__, options) and f)
    train(loop, tmp_path, compile=how, total_timesteps=120, eval_episodes=1)
    graph = how == "graph" and torch.cuda.is_available() and loop == "sac"  # PPO's family stays on the CPU
    options = {"fullgraph": True, "dynamic": False, "options": {"triton.cudagraphs": graph}}
    assert calls == ({} if how == "off" else {"update": options, "draw": options})
