"""Options in the environment's name: --env ID,option=value,..."""

import gymnasium as gym
import pytest
from common import Toy, flags, json_of, refused, rows_of
from hypothesis import given
from hypothesis import strategies as st

from pmoe.pmoe_sac import Envs

TEXTS = st.text(st.characters(exclude_characters="'\\", exclude_categories=["C", "Z"]) | st.just(" "))
# Not 1e+16: repr writes a plus sign there, which is no literal's part.
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: "+" not in repr(x))
OPTIONS = st.dictionaries(
    st.from_regex("[a-z_][a-z0-9_]*", fullmatch=True).filter(lambda x: x != "id"),
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    max_size=4,
)


def made_by_gym(env_id) -> tuple[str, dict]:
    """What gym.make is called with"""
    calls = []

    def make(name, **options):
        calls.append((name, options))
        return Toy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gym, "make", make)
        Envs(env_id, 2)
    first, second = calls
    assert first == second
    return first


def types_of(options) -> list[type]:
    return [type(value) for value in options.values()]


@given(st.sampled_from(["Hopper-v5", "my_module:My/Env-v0", "a.b:C"]), OPTIONS)
def test_any_options_in_a_name_reach_the_environment(name, options):
    written = name
    for key, value in options.items():
        literal = f"'{value}'" if isinstance(value, str) else repr(value)
        written += f",{key}={literal}"
    made, made_with = made_by_gym(written)
    assert made == name
    assert made_with == options
    assert types_of(made_with) == types_of(options)


VALUES = [
    ("True", True),
    ("False", False),
    ("None", None),
    ("-1.5", -1.5),
    ("1e-3", 0.001),
    ("3", 3),
    ("-2", -2),
    ("0.", 0.0),
    ("'text'", "text"),
    ("'a,b=1'", "a,b=1"),
    ("''", ""),
    ("'-v5'", "-v5"),
]


@pytest.mark.parametrize("text, value", VALUES)
def test_values_of_options(text, value):
    name, options = made_by_gym(f"Hopper-v5,first={text},second={text}")
    assert name == "Hopper-v5"
    assert options == {"first": value, "second": value}
    assert type(options["first"]) is type(value)


def test_options_change_the_environment():
    envs = Envs("Hopper-v5,reset_noise_scale=0.0,exclude_current_positions_from_observation=False", 2)
    envs.start([1, 2])
    assert envs.obs.shape == (2, 12)
    assert (envs.obs[0] == envs.obs[1]).all()
    plain = Envs("Hopper-v5", 2)
    plain.start([1, 2])
    assert plain.obs.shape == (2, 11)
    assert (plain.obs[0] != plain.obs[1]).any()


NOISELESS = "Hopper-v5,reset_noise_scale=0.0"


def test_a_run_with_options_is_in_a_folder_of_its_own_and_evaluated_with_them(pmoe_here, tmp_path):
    fields = {"total_timesteps": 60, "eval_every": 60}
    for env in ("Hopper-v5", NOISELESS):
        result = pmoe_here("run", "sac", *flags("sac", env=env, **fields))
        assert result.returncode == 0
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert folders == ["Hopper-v5", NOISELESS]

    for env in ("Hopper-v5", NOISELESS):
        (path,) = tmp_path.glob(f"runs/{env}/*/*")
        assert json_of(path / "config.json")["args"]["env_id"] == env
        (row,) = rows_of(path / "eval.csv")
        result = pmoe_here("eval", path, "--episodes", 2)
        mean = float(row["return_mean"])
        assert f" {mean:.1f} " in result.stdout
        assert env in result.stdout
        # Without noise every episode starts, and goes, the same way.
        assert (float(row["return_std"]) == 0) == (env == NOISELESS)
    assert NOISELESS in pmoe_here("status", "runs").stdout


@pytest.mark.parametrize(
    "env, word",
    [
        ("TargetReaching-v0,fixed_layout", "fixed_layout"),
        ("TargetReaching-v0,fixed_layout=true", "fixed_layout=true"),
        ("TargetReaching-v0,fixed_layout=-1", "fixed_layout must be a whole number from 0 up, not -1"),
        ("TargetReaching-v0,fixed_layout='a'", "fixed_layout must be a whole number"),
        ("TargetReaching-v0,fixed_layout=1.e.", "fixed_layout=1.e."),
        ("TargetReaching-v0,fixed_layout=2x", "2x"),
        ("TargetReaching-v0,fixed_layouts=2", "unexpected keyword argument 'fixed_layouts'"),
        ("TargetReaching-v0,fixed_layout=2,", "TargetReaching-v0"),
        ("TargetReaching-v0, fixed_layout=2", "TargetReaching-v0"),
        ("TargetReaching-v0,fixed_layout=__import__('os')", "TargetReaching-v0"),
        ("TargetReaching-v9,fixed_layout=2", "v9"),
        ("Hopper-v5,reset_noise_scales=0.0", "reset_noise_scales"),
        (",fixed_layout=2", "fixed_layout=2"),
    ],
)
def test_options_that_are_none_are_refused(pmoe_here, tmp_path, env, word):
    refused(pmoe_here("run", "sac", *flags("sac", env=env)), word)
    assert not list(tmp_path.iterdir())
