"""Longer runs: a finished run goes on to a larger total as if it had never ended. What else is refused."""

import functools
import os
import re
import shutil
import signal

import pytest
from common import (
    ALGORITHMS,
    MODULES,
    Killed,
    at_move,
    checkpoint,
    files_below,
    is_on_policy,
    json_of,
    make_args,
    rows_of,
    same_run,
    train,
)

FIELDS = {"num_seeds": 2, "env_id": "ToyTerminates-v0", "eval_every": 100, "checkpoint_every": 50}


def in_checkpoint_order(path) -> list[str]:
    return sorted(file.name for file in (path / "checkpoint").iterdir())


def same_whole_run(path, other) -> None:
    """As `same_run`; and nothing but the clock and the command line tells which run was made longer."""
    same_run(path, other)
    assert in_checkpoint_order(path) == in_checkpoint_order(other)
    replay = path / "checkpoint/replay.f32"
    if replay.exists():
        assert replay.read_bytes() == (other / "checkpoint/replay.f32").read_bytes()
    done = json_of(path / "done.json")
    twin = json_of(other / "done.json")
    done["wall_time"] = twin["wall_time"]
    assert done == twin
    args = json_of(path / "config.json")["args"]
    assert args["total_timesteps"] == done["step"] == checkpoint(path)["step"]


def extend(loop, run_dir, *totals, **fields) -> list:
    """A run of the first total, made longer to each of the others; its directories"""
    fields = {**FIELDS, **fields}
    paths = train(loop, run_dir, total_timesteps=totals[0], **fields)
    for total in totals[1:]:
        for path in paths:
            assert (path / "done.json").exists()
        assert train(loop, run_dir, total_timesteps=total, resume=True, **fields) == paths
    return paths


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The directories of a run of 200 steps at one go, not to be changed"""

    def run(loop):
        return extend(loop, tmp_path_factory.mktemp("straight"), 200)

    return functools.cache(run)


# The same as at one go


@pytest.mark.parametrize(
    "totals",
    [(100, 200), (150, 200), (50, 100, 150, 200)],
    ids=["evaluated at the end anyway", "evaluated for the end", "three times"],
)
def test_a_longer_run_is_as_one_that_was_so_long_from_the_start(tmp_path, straight, loop, totals):
    extended = extend(loop, tmp_path, *totals)
    for path, twin in zip(straight(loop), extended, strict=True):
        same_whole_run(path, twin)
        # An evaluation for the end alone is gone.
        assert [row["step"] for row in rows_of(twin / "eval.csv")] == ["100", "200"]


@pytest.mark.parametrize("fields", [{"buffer_size": 70}, {"alpha": "auto"}, {"env_id": "Hopper-v4"}], ids=str)
def test_a_longer_run_of_sac_with_other_options(tmp_path, fields):
    """A full replay; a temperature with an optimiser; an episode under way when the shorter run ended"""
    straight = extend("sac", tmp_path / "straight", 200, **fields)
    extended = extend("sac", tmp_path / "extended", 130, 200, **fields)
    for path, twin in zip(straight, extended, strict=True):
        same_whole_run(path, twin)


def test_an_evaluation_between_the_totals_is_that_of_the_shorter_run(tmp_path):
    """Until the run is made longer, it has the evaluation of its end, and done.json too."""
    (path,) = train("sac", tmp_path, total_timesteps=150, env_id="ToyTerminates-v0")
    (row,) = rows_of(path / "eval.csv")
    assert row["step"] == "150"
    assert json_of(path / "done.json")["return_mean"] == float(row["return_mean"])


@pytest.mark.parametrize("moment", ["at once", "on the way", "at the end"])
def test_a_longer_run_that_is_killed(tmp_path, monkeypatch, straight, loop, moment):
    """Its process dies before its first checkpoint, later, or before done.json; the same command goes on."""
    paths = extend(loop, tmp_path, 50)
    fields = {**FIELDS, "total_timesteps": 200, "resume": True}
    replace = os.replace
    written = []

    def stop(temporary, file):
        written.append(os.path.basename(file))
        dies = {
            "at once": len(written) == 3,
            "on the way": "0000000150.pt" in written,
            "at the end": "done.json" in written,
        }
        if dies[moment]:
            raise Killed
        replace(temporary, file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(Killed):
            train(loop, tmp_path, **fields)
    # It is not finished any more, neither for the larger total nor for the smaller.
    assert not (paths[1] / "done.json").exists()
    train(loop, tmp_path, **fields)
    for path, twin in zip(straight(loop), paths, strict=True):
        same_whole_run(path, twin)


def test_a_longer_run_that_is_stopped_goes_on(tmp_path, monkeypatch, straight, loop):
    extend(loop, tmp_path, 50)
    fields = {**FIELDS, "total_timesteps": 200, "resume": True}
    with monkeypatch.context() as patch:
        at_move(patch, loop, 60, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(loop, tmp_path, **fields)
    paths = train(loop, tmp_path, **fields)
    for path, twin in zip(straight(loop), paths, strict=True):
        same_whole_run(path, twin)


def test_every_algorithm_can_be_made_longer(tmp_path, quick_run, algo):
    (path,) = train(algo, tmp_path, total_timesteps=200)
    assert train(algo, tmp_path, total_timesteps=400, resume=True) == [path]
    same_whole_run(path, quick_run(algo))


# Refused


def refused(capsys, algo, run_dir, *words, **fields) -> None:
    """Asserts one line with these words, status 2, and that not a byte has changed."""
    before = files_below(run_dir)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train(algo, run_dir, **fields)
    out, error = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert len(error.splitlines()) == 1
    assert error.startswith("error: ")
    for word in words:
        assert word in error
    assert files_below(run_dir) == before


def test_no_longer_than_it_is(tmp_path, capsys, loop):
    """The same total again, and a smaller one"""
    extend(loop, tmp_path, 100)
    for total in (100, 50):
        fields = {**FIELDS, "total_timesteps": total}
        for resume in (True, False):
            refused(capsys, loop, tmp_path, "is finished at step 100", "larger", resume=resume, **fields)
    refused(capsys, loop, tmp_path, "is finished at step 100", "--resume", total_timesteps=200, **FIELDS)


def test_less_than_a_run_has_that_was_stopped(tmp_path, monkeypatch, capsys, loop):
    with monkeypatch.context() as patch:
        at_move(patch, loop, 130, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(loop, tmp_path, env_id="ToyTerminates-v0")
    words = ("is already at step", "beyond --total-timesteps")
    refused(capsys, loop, tmp_path, *words, env_id="ToyTerminates-v0", total_timesteps=100, resume=True)


@pytest.mark.parametrize("deleted", ["as asked", "by hand, of one seed"])
def test_without_its_replay_a_run_is_not_made_longer(tmp_path, capsys, deleted):
    if deleted == "as asked":
        extend("sac", tmp_path, 200, keep_replay=False)
    else:
        paths = extend("sac", tmp_path, 200)
        (paths[1] / "checkpoint/replay.f32").unlink()
    refused(capsys, "sac", tmp_path, "replay was deleted", total_timesteps=400, resume=True, **FIELDS)


ON_POLICY = pytest.mark.parametrize("algo", [algo for algo in ALGORITHMS if is_on_policy(algo)])


@ON_POLICY
def test_where_the_learning_rate_depends_on_the_total_it_stays(tmp_path, capsys, algo):
    extend(algo, tmp_path, 200, anneal_lr=True)
    run_paths = MODULES[algo].run_paths
    longer = make_args(algo, tmp_path, total_timesteps=400, anneal_lr=True, **FIELDS)
    other = make_args(algo, tmp_path, total_timesteps=200, anneal_lr=True, **FIELDS)
    # It is another configuration.
    assert run_paths(longer) != run_paths(other)
    fields = {**FIELDS, "total_timesteps": 400, "anneal_lr": True, "resume": True}
    refused(capsys, algo, tmp_path, "--total-timesteps 200, not 400", **fields)


@ON_POLICY
def test_with_a_tag_annealing_is_refused_too(tmp_path, capsys, algo):
    extend(algo, tmp_path, 200, anneal_lr=True, tag="tagged")
    fields = {**FIELDS, "total_timesteps": 400, "anneal_lr": True, "resume": True, "tag": "tagged"}
    refused(capsys, algo, tmp_path, "--total-timesteps 200, not 400", **fields)


@ON_POLICY
def test_a_rollout_that_was_cut_short_is_not_gone_on_with(tmp_path, capsys, algo):
    extend(algo, tmp_path, 120)
    refused(capsys, algo, tmp_path, "rollout", "step 120", total_timesteps=400, resume=True, **FIELDS)


def test_seeds_of_different_length_are_not_made_longer_together(tmp_path, capsys):
    train("sac", tmp_path, seed=1, total_timesteps=100, env_id="ToyTerminates-v0")
    train("sac", tmp_path, seed=2, total_timesteps=150, env_id="ToyTerminates-v0")
    refused(capsys, "sac", tmp_path, total_timesteps=200, resume=True, **FIELDS)
    train("sac", tmp_path, seed=1, total_timesteps=150, env_id="ToyTerminates-v0", resume=True)
    train("sac", tmp_path, total_timesteps=200, resume=True, **FIELDS)


# Another option


def test_another_option_under_a_tag(tmp_path, capsys, loop):
    fields = {"tag": "tagged", "total_timesteps": 100, "env_id": "ToyTerminates-v0"}
    train(loop, tmp_path, learning_rate=0.25, **fields)
    fields |= {"total_timesteps": 200, "resume": True}
    words = ("--learning-rate 0.25, not 0.5", "--tag")
    refused(capsys, loop, tmp_path, *words, learning_rate=0.5, **fields)
    # A value that is the same goes on.
    (path,) = train(loop, tmp_path, learning_rate=0.25, **fields)
    assert json_of(path / "done.json")["step"] == 200


def test_a_run_says_that_it_is_made_longer(tmp_path, capsys):
    extend("sac", tmp_path, 120, num_seeds=1)
    out = capsys.readouterr().out
    assert "made longer" not in out
    # Its last evaluation was due at no multiple of --eval-every.
    assert re.search(r"\nevaluation at step 120: \S+\n$", out)
    train("sac", tmp_path, total_timesteps=200, resume=True, **{**FIELDS, "num_seeds": 1})
    out = capsys.readouterr().out
    assert "finished at step 120; made longer, to 200\n" in out


def test_another_option_without_a_tag_names_the_nearest_run(tmp_path, capsys, loop):
    fields = {"total_timesteps": 100, "env_id": "ToyTerminates-v0"}
    train(loop, tmp_path, gamma=0.5, learning_rate=0.125, **fields)
    (near,) = train(loop, tmp_path, learning_rate=0.25, **fields)
    fields |= {"total_timesteps": 200, "resume": True}
    words = ("nothing to --resume", str(near), "--learning-rate 0.25, not 0.5")
    refused(capsys, loop, tmp_path, *words, learning_rate=0.5, **fields)


def test_a_run_of_other_primitives_and_another_seed_is_named(tmp_path, capsys):
    fields = {"total_timesteps": 100, "env_id": "ToyTerminates-v0"}
    (near,) = train("sac", tmp_path, seed=3, **fields)
    words = ("nothing to --resume", str(near), "--k 2, not 4", "seed3, not seed1")
    refused(capsys, "sac", tmp_path, *words, k=4, resume=True, **fields)


def test_nothing_to_resume(tmp_path, capsys, loop):
    refused(capsys, loop, tmp_path, "does not exist, so there is nothing to --resume", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_say_may_change(tmp_path, loop):
    """How often it is evaluated and saved; where the run directory lies; whether the replay is kept"""
    fields = {"env_id": "ToyTerminates-v0"}
    train(loop, tmp_path / "here", total_timesteps=150, **fields)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    looks = {"eval_every": 50, "eval_episodes": 1, "checkpoint_every": 60}
    if not is_on_policy(loop):
        looks["keep_replay"] = False
    (path,) = train(loop, tmp_path / "there", total_timesteps=300, resume=True, **looks, **fields)
    (straight,) = train(loop, tmp_path / "straight", total_timesteps=300, **fields)
    assert (path / "episodes.csv").read_bytes() == (straight / "episodes.csv").read_bytes()
    assert checkpoint(path)["learnt"].keys() == checkpoint(straight)["learnt"].keys()
    assert not (path / "checkpoint/replay.f32").exists()
