"""What a run says: its first lines, its progress as lines or, at a terminal, as a bar, and its last line."""

import os
import pty
import re
import signal
import subprocess

import numpy as np
import pytest
import torch
from common import PMOE, flags, is_on_policy, rows_of, train

HIDE_CURSOR = "\x1b[?25l"
SHOW_CURSOR = "\x1b[?25h"

# Nothing is learnt: these runs are about what is said.
IDLE = {
    "env_id": "ToyTerminates-v0",
    "total_timesteps": 2500,
    "learning_starts": 10_000,
    "random_steps": 10_000,
    "eval_every": 2000,
    "checkpoint_every": 10_000,
}


def progress_lines(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("step ")]


def value_at(paths, name, column, step) -> str:
    """How progress words the last value, before or at a step, of a CSV file of each seed"""
    values = []
    for path in paths:
        rows = [row for row in rows_of(path / f"{name}.csv") if int(row["step"]) <= step]
        values.extend(float(row[column]) for row in rows[-1:])
    if not values:
        return "-"
    if len(paths) == 1:
        return f"{values[0]:.0f}"
    return f"{np.mean(values):.0f} ({min(values):.0f} to {max(values):.0f})"


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_progress_without_a_terminal(tmp_path, capsys, num_seeds):
    # Untaught episodes of pendulum differ, so that mean and range do.
    fields = {**IDLE, "env_id": "Pendulum-v1"}
    paths = train("sac", tmp_path, num_seeds=num_seeds, **fields)
    lines = progress_lines(capsys.readouterr().out)
    assert len(lines) == 3
    for line, step, percent in zip(lines, (1000, 2000, 2500), (40, 80, 100)):
        returned = value_at(paths, "episodes", "episodic_return", step)
        # There is no evaluation before step 2000, and that of the very end comes after the line.
        evaluated = value_at(paths, "eval", "return_mean", min(step, 2000))
        start = f"step {step:,} of 2,500 ({percent}%)  return {returned}  evaluation {evaluated}  "
        assert line.startswith(start)
        assert re.fullmatch(r"\d+ steps/s  \d:\d\d:\d\d left", line.removeprefix(start))
    assert "evaluation -  " in lines[0]
    assert lines[-1].endswith(" 0:00:00 left")


def test_progress_where_no_episode_has_ended(tmp_path, capsys):
    fields = {**IDLE, "env_id": "ToyTerminates-v0,length=2000", "total_timesteps": 1000}
    train("sac", tmp_path, **fields)
    (line,) = progress_lines(capsys.readouterr().out)
    assert line.startswith("step 1,000 of 1,000 (100%)  return -  evaluation -  ")


def test_progress_of_every_loop(tmp_path, capsys, loop):
    train(loop, tmp_path)
    (line,) = progress_lines(capsys.readouterr().out)
    number = r"-?\d+"
    words = rf"step 400 of 400 \(100%\)  return {number}  evaluation {number}  \d+ steps/s  0:00:00 left"
    assert re.fullmatch(words, line)


def test_speed_is_that_of_the_last_while(tmp_path, capsys):
    """Not since the start: the first half of this run took a million seconds."""
    fields = {**IDLE, "total_timesteps": 1000}
    (path,) = train("sac", tmp_path, **fields)
    (file,) = path.glob("checkpoint/[0-9]*.pt")
    state = torch.load(file, weights_only=True)
    torch.save({**state, "wall_time": 1e6}, file)
    capsys.readouterr()
    train("sac", tmp_path, resume=True, **{**fields, "total_timesteps": 4000})
    last = progress_lines(capsys.readouterr().out)[-1]
    speed = int(re.search(r"(\d+) steps/s", last)[1])
    assert speed > 10


def test_the_first_lines(tmp_path, capsys, loop):
    fields = {"total_timesteps": 100, "env_id": "ToyTerminates-v0"}
    paths = train(loop, tmp_path, num_seeds=2, **fields)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{paths[0]} {paths[1]} on cpu, from step 0"
    train(loop, tmp_path, num_seeds=2, resume=True, **{**fields, "total_timesteps": 200})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{paths[0]} {paths[1]} on cpu, from step 100"
    speaks_of_replay = any("replay" in line for line in lines)
    assert speaks_of_replay != is_on_policy(loop)


@pytest.mark.parametrize("keep", [True, False])
def test_how_large_the_replay_will_be(tmp_path, capsys, keep):
    fields = {**IDLE, "total_timesteps": 100_000, "keep_replay": keep}

    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Enough):
        patch.setattr("pmoe.pmoe_sac.Runs.__enter__", stop)
        train("sac", tmp_path, **fields)
    line = capsys.readouterr().out.splitlines()[-1]
    # Observation 2, action 2, observation 2, reward and end 1 each: eight numbers of four bytes
    ending = "--no-keep-replay deletes it at the end" if keep else "it is deleted at the end"
    assert line == f"each seed's replay will take 3 MB of memory and 3 MB of disk space; {ending}"


# At a terminal


def start_at_terminal(folder, **fields) -> tuple[subprocess.Popen, int]:
    """A run in a process of its own that writes to a terminal, and the terminal's other end"""
    ours, its = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    command = [PMOE, "run", "sac", *flags("sac", **fields)]
    process = subprocess.Popen(command, cwd=folder, env=env, stdin=its, stdout=its, stderr=its)
    os.close(its)
    return process, ours


def read_until(terminal, word="") -> str:
    """All that is written up to a word, or up to the end"""
    text = ""
    while not word or word not in text:
        try:
            read = os.read(terminal, 4096)
        except OSError:  # the end, on Linux
            break
        if not read:
            break
        text += read.decode(errors="replace")
    return text


def test_a_bar_at_a_terminal(tmp_path):
    fields = {**IDLE, "env_id": "Pendulum-v1"}
    process, terminal = start_at_terminal(tmp_path, **fields)
    text = read_until(terminal)
    os.close(terminal)
    assert process.wait(60) == 0
    assert text.count(HIDE_CURSOR) == text.count(SHOW_CURSOR) == 1
    before, _, after = text.partition(HIDE_CURSOR)
    assert "from step 0" in before
    live, _, rest = after.partition(SHOW_CURSOR)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", live)
    steps = [int(step.replace(",", "")) for step in re.findall(r"step ([\d,]+) of 2,500", plain)]
    assert steps == sorted(steps)
    assert len(set(steps)) >= 3
    assert steps[-1] == 2500
    assert re.search(r"\(100%\).+return -\d+  evaluation -\d+  \d+ steps/s  0:00:00 left", plain)
    assert " of 2,500" not in rest


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_cursor_is_shown_again_after_a_signal(tmp_path, number, status):
    fields = {**IDLE, "env_id": "Pendulum-v1", "total_timesteps": 10**6, "buffer_size": 1000}
    process, terminal = start_at_terminal(tmp_path, **fields)
    text = read_until(terminal, " steps/s")
    process.send_signal(number)
    text += read_until(terminal)
    os.close(terminal)
    assert process.wait(60) == status
    assert text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR) > 0
    last = text.splitlines()[-1]
    assert re.search(r"stopped at step [\d,]+; the same command with --resume goes on$", last)
    assert "Traceback" not in text
