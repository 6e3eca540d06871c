"""EnvPool is the same task as Gymnasium, and trains, repeats and resumes."""

import gymnasium as gym
import numpy as np
import pytest
from common import MODULES, checkpoint, flags, refused, rows_of, same_run, train

from pmoe.pmoe_sac import Envs

pytest.importorskip("envpool")


@pytest.mark.parametrize("env_id", ["Hopper-v4", "Walker2d-v4", "HalfCheetah-v4"])
def test_physics_is_that_of_gymnasium(env_id):
    """Step by step from the same state, which is the observation but for x (nothing depends on it)."""
    pool, env, rng = Envs(env_id, 1, "envpool"), gym.make(env_id).unwrapped, np.random.default_rng(0)
    clipped = 10 if env_id != "HalfCheetah-v4" else np.inf  # their velocities are cut, the state is then not known
    pool.start([3])
    env.reset()
    compared, ends = 0, 0
    for _ in range(500):
        obs, action = pool.obs[0].copy(), rng.uniform(pool.low / 2, pool.high / 2).astype(np.float32)
        env.set_state(np.r_[0, obs[: env.model.nq - 1]], obs[env.model.nq - 1 :])
        next_obs, reward, terminated, truncated = (x[0] for x in pool.step(action[None], np.int32([0])))
        if (np.abs(obs[env.model.nq - 1 :]) < clipped).all():
            expected = env.step(action)
            np.testing.assert_allclose(next_obs, expected[0], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(reward, expected[1], rtol=1e-5, atol=1e-5)
            assert terminated == expected[2]
            compared, ends = compared + 1, ends + terminated
        if terminated or truncated:
            pool.reset(0)
    assert compared > 100 and (ends > 1 or env_id == "HalfCheetah-v4")


FIELDS = {"env_id": "Hopper-v4", "env_backend": "envpool", "num_seeds": 2, "total_timesteps": 300}


def test_trains_and_the_same_seeds_give_the_same_bytes(tmp_path, loop):
    for path, twin in zip(*(train(loop, tmp_path / name, **FIELDS) for name in "ab"), strict=True):
        same_run(path, twin)
    texts = [(path / "episodes.csv").read_text() for path in (tmp_path / "a").glob("*/*/*")]
    assert len(set(texts)) == 2


def test_resumes(tmp_path, monkeypatch, loop):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MODULES[loop].Envs, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):  # at step 200
            train(loop, tmp_path, **FIELDS)
    paths = train(loop, tmp_path, resume=True, **FIELDS)
    assert len(paths) == 2
    for path in paths:
        steps = [int(row["step"]) for row in rows_of(path / "episodes.csv")]
        assert steps == sorted(set(steps)) and steps[0] < 150 < steps[-1] <= 300
        assert checkpoint(path)["step"] == 300


def test_options_in_the_name_reach_envpool(tmp_path):
    envs = Envs("Hopper-v4,reset_noise_scale=0.0", 2, "envpool")
    envs.start([1, 2])
    first = envs.obs.copy()
    envs.reset(0)
    assert (first == first[0]).all() and (envs.obs == first).all()
    plain = Envs("Hopper-v4", 2, "envpool")
    plain.start([1, 2])
    assert (plain.obs[0] != plain.obs[1]).any()
    fields = FIELDS | {"env_id": "Hopper-v4,reset_noise_scale=0.0", "num_seeds": 1, "total_timesteps": 60}
    (path,) = train("sac", tmp_path, **fields)
    assert float(rows_of(path / "eval.csv")[-1]["return_std"]) == 0


@pytest.mark.parametrize("env", ["Hopper-v4,reset_noise_scales=0.0", "Hopper-v4,reset_noise_scale", "Hopper-v4,x=1"])
def test_options_that_envpool_does_not_know_are_refused(pmoe_here, tmp_path, env):
    refused(pmoe_here("run", "sac", *flags("sac", env=env, env_backend="envpool")), "--env-backend envpool")
    assert not list(tmp_path.iterdir())
