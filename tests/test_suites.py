"""Environments of other projects' suites: one of each, where it is installed (docs/suites.md)."""

import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from common import PMOE, failed, files_below, flags, json_of, needs, refused, rows_of, run_at, same_runs

from pmoe import envs
from pmoe.envs import suites

EACH = [
    pytest.param("dm_control/walker-walk-v0", "dm_control", 1000, marks=needs("dmc")),
    pytest.param("EnvPool/MetaWorld-Reach-v3", "envpool", 500, marks=needs("envpool")),
    pytest.param("PointMaze_UMaze-v3", "gymnasium_robotics", 300, marks=needs("robotics")),
    pytest.param("AntMaze_UMaze-v5", "gymnasium_robotics", 700, marks=needs("robotics")),
]


# ------------------------------------------------------------------------------------------- where they are


def is_killed_and_resumed(folder, algo: str, **fields) -> str:
    """A run through the command line, killed somewhere between step 150 and its end, leaves the bytes of one
    that never stopped, below FOLDER/killed and FOLDER/straight. Returns what it said when it went on."""
    command = [PMOE, "run", algo, *flags(algo, checkpoint_every=50, eval_episodes=1, **fields)]
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL}
    straight = subprocess.Popen([*command, "--run-dir", "straight"], **quiet)
    command += ["--run-dir", "killed"]
    process = subprocess.Popen(command, **quiet)
    begun = "killed/*/*/*/checkpoint/*0[1-9]50.pt"
    while process.poll() is None and not list(folder.glob(begun)):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    command += ["--resume"]
    resumed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert straight.wait() == 0
    same_runs(folder / "straight", folder / "killed", seeds=1)
    return resumed.stdout


@pytest.mark.parametrize("env_id, package, limit", EACH)
def test_trains_is_killed_resumed_and_evaluated(pmoe_here, tmp_path, env_id, package, limit):
    """As if never stopped, though it was killed in the middle of an episode that was not the first"""
    assert envs.make(env_id).spec.max_episode_steps == limit
    env_id += ",max_episode_steps=80"
    fields = {"env_id": env_id, "total_timesteps": 300, "eval_every": 150}
    said = is_killed_and_resumed(tmp_path, "mrp-sac", **fields)
    assert "cannot be resumed exactly" not in said

    path = run_at(tmp_path / "killed").path
    versions = json_of(path / "config.json")["versions"]
    assert package in versions
    assert ("mujoco" in versions) == (package != "envpool")
    tells_success = "success" in rows_of(path / "eval.csv")[0]
    assert tells_success == (package != "dm_control")
    result = pmoe_here("eval", path, "--episodes", 2)
    assert result.returncode == 0, result.stderr
    assert env_id in result.stdout


@pytest.mark.parametrize(
    "env_id, right",
    [
        pytest.param("dm_control/walker-wlak-v0", "`walker-walk`", marks=needs("dmc")),
        pytest.param("EnvPool/MetaWorld-Raech-v3", "`EnvPool/MetaWorld-Reach-v3`", marks=needs("envpool")),
        pytest.param("EnvPool/MetaWorld/Reach-v3", "`EnvPool/MetaWorld-Reach-v3`", marks=needs("envpool")),
        pytest.param("PointMaze_UMaz-v3", "`PointMaze_UMaze`", marks=needs("robotics")),
    ],
)
def test_a_misspelt_task(pmoe_here, tmp_path, env_id, right):
    refused(pmoe_here("run", "sac", "--env", env_id), env_id, f"Did you mean: {right}?")
    (tmp_path / "grid.toml").write_text(f'env = "{env_id}"\n[[method]]\nalgo = "sac"\n')
    refused(pmoe_here("grid", "grid.toml", "--dry-run"), env_id, f"Did you mean: {right}?")


@pytest.mark.parametrize("env_id", [pytest.param("EnvPool/MetaWorld-Reach-v3", marks=needs("envpool"))])
def test_metaworld_shows_its_goal(env_id):
    goals = []
    env = envs.make(env_id)
    for seed in (1, 2, 1):
        obs, _ = env.reset(seed=seed)
        goals.append(obs[36:39])
    assert (goals[0] != 0).all()
    assert (goals[0] != goals[1]).all()
    np.testing.assert_array_equal(goals[0], goals[2])
    assert env.spec.max_episode_steps == 500
    hidden, _ = envs.make(f"{env_id},partially_observable=True").reset(seed=1)
    np.testing.assert_array_equal(hidden[36:39], 0)


@pytest.mark.parametrize(
    "env_id, words",
    [
        pytest.param("EnvPool/Pendulum-v1,num_envs=2", "num_envs is no option", marks=needs("envpool")),
        pytest.param("EnvPool/Pendulum-v1,batch_size=2", "batch_size is no option", marks=needs("envpool")),
        pytest.param("EnvPool/Pendulum-v1,seed=2", "seed is no option", marks=needs("envpool")),
        pytest.param("EnvPool/CartPole-v1", "must have flat Boxes", marks=needs("envpool")),
    ],
)
def test_what_envpool_has_and_pmoe_has_not(pmoe_here, tmp_path, env_id, words):
    refused(pmoe_here("run", "sac", "--env", env_id), words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env_id", [pytest.param("EnvPool/Pendulum-v1", marks=needs("envpool"))])
def test_a_pool_of_one_is_an_environment(env_id):
    """It says what Gymnasium's own Pendulum says, but for the numbers' precision, until its time limit."""
    env = envs.make(env_id)
    obs, _ = env.reset(seed=1)
    twin = gym.make("Pendulum-v1")
    twin.reset(seed=1)
    twin.unwrapped.state = np.array([np.arctan2(obs[1], obs[0]), obs[2]])
    for step in range(1, 201):
        action = np.float32([np.sin(step)])
        obs, reward, terminated, truncated, info = env.step(action)
        twin_obs, twin_reward, *ends, _ = twin.step(action)
        if step <= 50:  # a pendulum's errors grow
            np.testing.assert_allclose(obs, twin_obs, atol=1e-2)
            assert reward == pytest.approx(twin_reward, abs=1e-2)
        assert (terminated, truncated) == tuple(ends)
    assert truncated
    assert info["elapsed_step"] == 200


@pytest.mark.parametrize("env_id", [pytest.param("EnvPool/Pendulum-v1", marks=needs("envpool"))])
@pytest.mark.parametrize("limit", [150, 250])
def test_a_time_limit_stands_in_for_the_pools_own(env_id, limit):
    """Which is 200"""
    env = envs.make(f"{env_id},max_episode_steps={limit}")
    assert env.spec.max_episode_steps == limit
    for _ in range(2):
        env.reset(seed=1)
        for step in range(1, limit + 1):
            *_, terminated, truncated, info = env.step(np.zeros(1, np.float32))
            assert not terminated
            assert truncated == (step == limit)
        assert info["elapsed_step"] == limit


# ---------------------------------------------------------------------------------------- where they are not


@pytest.fixture
def unregistered(monkeypatch):
    """No suite's environments are known to Gymnasium, as before one is first asked for."""
    for name in list(gym.registry):
        if name.startswith(tuple(suites.SUITES)):
            monkeypatch.delitem(gym.registry, name)


@pytest.fixture
def without(monkeypatch, unregistered):
    """Hides a package, as if it were not installed, and the others of its suite were"""

    def hide(package):
        def version_of(name):
            return "" if name == package else "1.0"

        monkeypatch.setattr(suites, "version_of", version_of)

    return hide


@pytest.mark.parametrize(
    "env_id, package, extra",
    [
        ("dm_control/walker-walk-v0", "shimmy", "dmc"),
        ("EnvPool/MetaWorld-Reach-v3,partially_observable=True", "envpool", "envpool"),
        ("PointMaze_UMaze-v3", "gymnasium_robotics", "robotics"),
        ("gymnasium:AntMaze_UMaze-v5", "gymnasium_robotics", "robotics"),  # a module that has none
    ],
)
def test_a_suite_that_is_missing(pmoe_here, without, tmp_path, env_id, package, extra):
    without(package)
    words = (f"needs {package}", f"pip install '.[{extra}]'")
    refused(pmoe_here("run", "sac", "--env", env_id), env_id, *words)
    (tmp_path / "grid.toml").write_text(f'env = "{env_id}"\n[[method]]\nalgo = "sac"\n')
    refused(pmoe_here("grid", "grid.toml", "--dry-run"), *words)
    failed(pmoe_here("plot", "--environment", env_id), *words)
    assert [file.name for file in files_below(tmp_path)] == ["grid.toml"]


@pytest.mark.parametrize("required, skipped", [("", True), ("robotics", True), ("robotics,dmc", False)])
def test_tests_of_a_missing_suite_are_skipped_unless_it_is_required(monkeypatch, without, required, skipped):
    """CI names those that it has installed."""
    without("shimmy")
    monkeypatch.setenv("PMOE_REQUIRE_SUITES", required)
    suite, skip = needs("dmc")
    assert suite.name == "suites"
    assert skip.args == (skipped,)


def test_versions_that_clash(pmoe_here, monkeypatch, unregistered):
    """As dm_control 1.0 and MuJoCo 4, which import and then make no model"""

    def raises(text):
        raise AttributeError("'MjModel' object has no attribute 'flex_vertedge'")

    physics = SimpleNamespace(from_xml_string=raises)
    for name in ("shimmy", "dm_control", "dm_control.mujoco"):
        module = ModuleType(name)
        module.Physics = physics
        monkeypatch.setitem(sys.modules, name, module)
    versions = {"shimmy": "2.0", "dm_control": "1.0", "mujoco": "4.0"}
    monkeypatch.setattr(suites, "version_of", versions.get)
    result = pmoe_here("run", "sac", "--env", "dm_control/walker-walk-v0")
    refused(result, "shimmy 2.0, dm_control 1.0, mujoco 4.0 (AttributeError", "flex_vertedge", "'.[dmc]'")


def test_a_file_that_is_called_like_a_package_is_none(monkeypatch, tmp_path):
    """As an envpool.py in the current folder: only what is installed has a version."""
    (tmp_path / "no_package_of_anybody.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert suites.version_of("no_package_of_anybody") == ""
    assert suites.version_of("pytest") == pytest.__version__


@pytest.mark.parametrize(
    "env_id, hint",
    [
        ("envpool/Ant-v5", "Did you mean: `EnvPool`?"),
        ("dm-control/a-b-v0", "Did you mean: `dm_control`?"),
        ("MetaWorld-Reach-v3", "MetaWorld is among EnvPool's tasks: `EnvPool/MetaWorld-Reach-v3`"),
        ("Metaworld/Reach-v3", "MetaWorld is among EnvPool's tasks: `EnvPool/MetaWorld-Reach-v3`"),
    ],
)
def test_a_misspelt_suite(pmoe_here, env_id, hint):
    refused(pmoe_here("run", "sac", "--env", env_id), hint)


def test_no_suite_is_imported_unless_it_is_asked_for():
    code = "import sys; from pmoe import envs; envs.make('Pendulum-v1'); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(result.stdout.split())
    assert "pmoe.envs.suites" in modules
    assert not modules & {"shimmy", "dm_control", "envpool", "gymnasium_robotics", "mujoco"}


def test_another_module_may_have_an_environment_that_is_called_alike(monkeypatch):
    gym.register("FetchBall-v0", "common:Toy")
    monkeypatch.setitem(sys.modules, "balls", ModuleType("balls"))
    suites.load_suite("balls:FetchBall-v1")
    assert envs.make("balls:FetchBall-v0").spec.id == "FetchBall-v0"
