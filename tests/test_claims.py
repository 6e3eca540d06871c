"""Claims: one process trains a run, whoever else starts it too; a dead one's run is taken over."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from common import PMOE, checkpoint, flags
from grid_tools import wait

from pmoe.grid import claims
from pmoe.grid.claims import beside, bury, claimed, holder, take

RACE = """
import json, os, sys
from pathlib import Path
from pmoe.grid import claims

claims.BEAT = 0.001
n = int(sys.argv[1])
rounds = int(sys.argv[2])
kind = sys.argv[3]
gone = os.fork()
if not gone:
    os._exit(0)
os.waitpid(gone, 0)
for i in range(rounds):
    file = Path(f"seed{i}.claim")
    if kind != "none":
        machine = claims.machine() if kind == "gone" else "another"
        claim = json.dumps({"machine": machine, "pid": gone, "token": "dead"})
        file.write_text("" if kind == "half" else claim)
        os.utime(file, None if kind == "gone" else (0, 0))
    starts = os.pipe()
    answers = os.pipe()
    ends = os.pipe()
    for child in range(n):
        if not os.fork():
            os.close(starts[1])
            os.close(ends[1])
            sys.stdout = sys.stderr
            os.read(starts[0], 1)  # until the parent closes the other end
            won = claims.take(Path(f"seed{i}"), f"{child}")
            os.write(answers[1], b"1" if won else b"0")
            os.read(ends[0], 1)  # the winner lives until all have tried
            os._exit(0)
    os.close(starts[1])
    results = b""
    while len(results) < n:
        results += os.read(answers[0], n)
    print(results.count(b"1"))
    os.close(ends[1])
    for _ in range(n):
        os.wait()
    for end in (starts[0], *answers, ends[0]):
        os.close(end)
"""


def write(path, machine=None, pid=None, token="other", age=0.0) -> None:
    """A claim on a run, by default of this process"""
    claim = {"machine": machine or claims.machine(), "pid": pid or os.getpid(), "token": token}
    beside(path, "claim").write_text(json.dumps(claim))
    touched = time.time() - age
    os.utime(beside(path, "claim"), (touched, touched))


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended"""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def below(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", ["none", "gone", "old", "half"])
def test_of_many_processes_one_wins(tmp_path, kind):
    """Where there is no claim, one of a process that is gone, another host's old one, half a one"""
    command = [sys.executable, "-c", RACE, "8", "100", kind]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.split() == ["1"] * 100
    assert sorted(below(tmp_path)) == sorted(f"seed{i}.claim" for i in range(100))


def test_of_many_threads_one_wins(tmp_path):
    start, won = threading.Barrier(16), []

    def compete(i):
        start.wait()
        won.append(take(tmp_path / "seed1", f"{i}"))

    threads = [threading.Thread(target=compete, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 15 + [True]


@pytest.mark.parametrize(
    "claim, alive",
    [
        ({}, True),
        ({"age": claims.DEAD - 20}, True),
        ({"age": claims.DEAD + 20}, False),
        ({"pid": 1}, True),  # another user's, or anyway there
        ({"pid": "gone"}, False),
        ({"machine": "another host"}, True),
        ({"machine": "another host", "pid": "gone"}, True),  # only its own host can tell
        ({"machine": "another host", "age": claims.DEAD + 20}, False),
    ],
    ids=str,
)
def test_alive_or_dead(tmp_path, monkeypatch, gone, claim, alive):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    path = tmp_path / "seed1"
    assert holder(path) is None and not claims.alive(path)
    write(path, **{name: gone if x == "gone" else x for name, x in claim.items()})
    assert claims.alive(path) == alive and holder(path)["token"] == "other"
    assert holder(path)["gone"] == (claim.get("pid") == "gone" and "machine" not in claim)
    assert take(path, "mine") != alive
    assert holder(path)["token"] == ("other" if alive else "mine")


def damaged(**fields) -> bytes:
    claim = {"machine": claims.machine(), "pid": os.getpid(), "token": "other"} | fields
    return json.dumps(claim).encode()


DAMAGED = {
    "empty": b"",
    "half": b'{"machine": "',
    "zeros": b"\0\0\0",
    "not UTF-8": b"\xff\xfe\xfa",
    "null": b"null",
    "list": b"[]",
    "number": b"1e999",
    "deep": b"[" * 3000,
    "huge": b" " * 10**6 + damaged(),
    "no pid": json.dumps({"machine": claims.machine(), "token": "other"}).encode(),
    "pid a text": damaged(pid="1"),
    "pid true": damaged(pid=True),
    "pid 0": damaged(pid=0),
    "pid -1": damaged(pid=-1),
    "pid 2^31": damaged(pid=2**31),
    "pid of 5000 digits": damaged().replace(b'pid": ', b'pid": ' + b"9" * 3500),
    "machine a list": damaged(machine=[]),
    "machine empty": damaged(machine=" "),
    "machine of controls": damaged(machine="\33[2J"),
    "token null": damaged(token=None),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_claim_holds_until_it_is_old(tmp_path, monkeypatch, name):
    """And never means a process: to signal number 0 or -1 would be to signal all."""
    monkeypatch.setattr(claims, "BEAT", 0.01)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("looked for a process"))
    path = tmp_path / "seed1"
    beside(path, "claim").write_bytes(DAMAGED[name])
    assert holder(path)["alive"] and not take(path, "mine")
    with pytest.raises(BlockingIOError, match="seed1.claim names no process; .* remove it$"), claimed([path]):
        pytest.fail("claimed what another may have")
    os.utime(beside(path, "claim"), (0, 0))
    assert not holder(path)["alive"] and take(path, "mine")


def test_the_status_of_runs_with_damaged_claims(pmoe_here, tmp_path):
    for seed, content in enumerate(DAMAGED.values()):
        (tmp_path / f"seed{seed}.claim").write_bytes(content)
    result = pmoe_here("status", ".", "--json")
    assert result.returncode == 1 and result.stderr == ""
    assert set(json.loads(result.stdout).values()) == {"running"}  # for all that can be told


def fifo(file) -> None:
    os.mkfifo(file)


def link_to_nothing(file) -> None:
    file.symlink_to("nothing")


def link_to_zeros(file) -> None:
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkdir, fifo, link_to_nothing, link_to_zeros])
def test_what_is_no_file_is_no_claim_once_it_is_old(tmp_path, monkeypatch, make):
    """And nobody waits for what is in it."""
    monkeypatch.setattr(claims, "BEAT", 0.01)
    path = tmp_path / "seed1"
    make(beside(path, "claim"))
    assert holder(path)["alive"] and not take(path, "mine")
    os.utime(beside(path, "claim"), (0, 0), follow_symlinks=False)
    assert take(path, "mine") and below(tmp_path) == ["seed1.claim"]


def test_a_folder_in_a_claims_place(tmp_path, monkeypatch, pmoe_here):
    """What is in it is not pmoe's to delete."""
    monkeypatch.setattr(claims, "BEAT", 0.01)
    claim = tmp_path / "runs/Pendulum-v1/sac-k4/seed1.claim"
    (claim / "a").mkdir(parents=True)
    os.utime(claim, (0, 0))
    result = pmoe_here("run", "sac", "--env", "Pendulum-v1")
    assert result.returncode == 1
    assert re.fullmatch("error: .* not empty: .*seed1.claim'\n", result.stderr)
    assert below(tmp_path / "runs")[-1] == "Pendulum-v1/sac-k4/seed1.claim/a"


def test_a_full_disk_leaves_no_claim(tmp_path):
    """Half a claim would keep everybody out for two minutes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "runs" / "seed1"
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="too large"), claimed([path]):
            pytest.fail("claimed what could not be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert below(tmp_path) == []


HOUR = 3600.0


def test_a_claim_whose_clock_is_ahead_is_taken_over_once_nobody_touches_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    monkeypatch.setattr(claims, "DEAD", 1.0)
    path = tmp_path / "seed1"
    write(path, machine="another host", age=-HOUR)
    begun = time.monotonic()
    assert take(path, "mine") and 1 <= time.monotonic() - begun < 10
    assert "trained by process" in capsys.readouterr().out


@pytest.mark.parametrize("age", [-HOUR, HOUR], ids=["ahead", "behind"])
def test_a_claim_that_beats_is_alive_however_wrong_its_clock(tmp_path, monkeypatch, age):
    """For as long as this process sees it beat, by its own clock"""
    monkeypatch.setattr(claims, "BEAT", 0.2)
    monkeypatch.setattr(claims, "DEAD", 2.0)
    path = tmp_path / "seed1"
    write(path, machine="another host", age=age)
    # As far as one look can tell
    assert not claims.alive(path)
    now = time.time() - age + 1
    timer = threading.Timer(0.2, os.utime, [beside(path, "claim"), (now, now)])
    timer.start()
    assert not take(path, "mine") and claims.alive(path)
    assert holder(path)["token"] == "other" and below(tmp_path) == ["seed1.claim"]
    timer.join()
    wait(lambda: not claims.alive(path), 10)
    assert take(path, "mine")


def test_after_a_reboot_a_run_is_taken_over(tmp_path, monkeypatch):
    """The process is gone, if no other machine has this one's name: one that beats keeps its run."""
    monkeypatch.setattr(claims, "BEAT", 0.2)
    host, *others = claims.machine().split()
    if not others:
        pytest.skip("no boot id here")
    path = tmp_path / "seed1"
    write(path, machine=f"{host} another-boot {others[-1]}")
    assert not claims.alive(path)
    with claimed([path]):
        assert holder(path)["pid"] == os.getpid()
    write(path, machine=f"{host} another-boot {others[-1]}")
    timer = threading.Timer(0.2, os.utime, [beside(path, "claim")])
    timer.start()
    assert not take(path, "mine") and claims.alive(path)
    timer.join()


def test_pmoe_run_goes_on_after_a_reboot(pmoe_here, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    host, *others = claims.machine().split()
    if not others:
        pytest.skip("no boot id here")
    words = ["run", "sac", *flags("sac", env="Pendulum-v1", seed=1, tag="x")]
    path = tmp_path / "runs/Pendulum-v1/sac-k2-x/seed1"
    path.parent.mkdir(parents=True)
    write(path, machine=f"{host} another-boot {others[-1]}")
    result = pmoe_here(*words)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("waiting 0 s for a sign of life: ")
    assert (path / "done.json").exists() and not beside(path, "claim").exists()


def test_a_clock_that_is_set_back_does_not_stop_the_heart(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.1)
    path = tmp_path / "seed1"
    clock = time.time
    with claimed([path]):
        monkeypatch.setattr(time, "time", lambda: clock() - HOUR)
        os.utime(beside(path, "claim"), (0, 0))
        wait(lambda: beside(path, "claim").stat().st_mtime > 0, 10)


def test_a_living_claim_is_not_buried(tmp_path, monkeypatch, gone):
    """It was created when the dead one, which two had seen, was gone already."""
    monkeypatch.setattr(claims, "BEAT", 0.01)
    path = tmp_path / "seed1"
    write(path, pid=gone)
    assert bury(path) and holder(path) is None
    write(path)
    assert not bury(path) and claims.alive(path) and below(tmp_path) == ["seed1.claim"]
    beside(path, "claim").unlink()
    assert bury(path) and below(tmp_path) == []  # or it has ended in the meantime


def test_a_burial_that_was_not_ended_is_forgotten(tmp_path, gone):
    path = tmp_path / "seed1"
    write(path, pid=gone)
    beside(path, "burial").mkdir()
    assert not take(path, "mine")
    os.utime(beside(path, "burial"), (0, 0))
    assert not take(path, "mine") and take(path, "mine") and below(tmp_path) == ["seed1.claim"]


def test_claimed_leaves_nothing_behind(tmp_path):
    paths = [tmp_path / "runs/env/sac" / f"seed{i}" for i in (1, 2)]
    with claimed(paths):
        assert [holder(path)["alive"] for path in paths] == [True, True]
    assert below(tmp_path) == []
    with pytest.raises(SystemExit), claimed(paths):
        raise SystemExit(2)
    assert below(tmp_path) == []


def test_a_claim_that_cannot_be_had_gives_the_others_back(tmp_path):
    paths = [tmp_path / f"seed{i}" for i in (1, 2, 3)]
    write(paths[1], pid=1)
    beside(paths[2], "failed").touch()
    with pytest.raises(BlockingIOError, match="seed2 is being trained by process 1 on "), claimed(paths):
        pytest.fail("claimed what another has")
    assert below(tmp_path) == ["seed2.claim", "seed3.failed"]


@pytest.mark.parametrize(
    "error, left",
    [
        (SystemExit(1), ["seed1.failed", "seed2.failed"]),
        (ValueError("an environment's"), ["seed1.failed", "seed2.failed"]),
        (SystemExit(143), []),
        (SystemExit(0), []),
        (KeyboardInterrupt(), []),
    ],
    ids=repr,
)
def test_failed_stays_until_the_next_start(tmp_path, error, left):
    paths = [tmp_path / f"seed{i}" for i in (1, 2)]
    with pytest.raises(type(error)), claimed(paths):
        raise error
    assert below(tmp_path) == left
    with claimed(paths):
        assert below(tmp_path) == ["seed1.claim", "seed2.claim"]


@pytest.mark.parametrize("error", [SystemExit(2), SystemExit(75)], ids=repr)
def test_a_refused_start_leaves_failed_alone(tmp_path, error):
    """The run is as it was; of several seeds, only those that had failed have."""
    paths = [tmp_path / f"seed{i}" for i in (1, 2, 3)]
    beside(paths[0], "failed").touch()
    with pytest.raises(SystemExit), claimed(paths[:2]):
        raise error
    assert below(tmp_path) == ["seed1.failed"]
    write(paths[2], pid=1)
    with pytest.raises(BlockingIOError), claimed(paths):
        pytest.fail("claimed what another has")
    assert below(tmp_path) == ["seed1.failed", "seed3.claim"]


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.1)
    path, old = tmp_path / "seed1", time.time() - claims.DEAD - 100
    with claimed([path]):
        os.utime(beside(path, "claim"), (old, old))
        assert not holder(path)["alive"]
        wait(lambda: holder(path)["alive"])
    assert holder(path) is None
    write(path, age=claims.DEAD + 100)
    time.sleep(1.2)
    assert not holder(path)["alive"]  # it stopped with the claim


def test_the_heart_goes_on_after_an_error_of_the_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.1)
    path, beats, touch = tmp_path / "seed1", [], os.utime

    def stale(file, *args):
        beats.append(file)
        if len(beats) == 1:
            raise OSError(116, "Stale file handle")
        touch(file, *args)

    monkeypatch.setattr(os, "utime", stale)
    with claimed([path]):
        wait(lambda: len(beats) > 2)


HOLD = """
import sys, time
from pathlib import Path
from pmoe.grid import claims

claims.BEAT = 0.1
with claims.claimed([Path("seed1")]):
    time.sleep(60)
"""


@pytest.mark.parametrize("by", ["another's", "nobody's"])
def test_a_process_that_lost_its_claim_ends(tmp_path, by):
    path = tmp_path / "seed1"
    process = subprocess.Popen([sys.executable, "-c", HOLD], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait(lambda: holder(path) and holder(path)["token"])
    if by == "another's":
        write(path)
    else:
        beside(path, "claim").unlink()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 75 and error == "error: another process has taken over seed1\n"
    assert below(tmp_path) == (["seed1.claim"] if by == "another's" else [])


def test_a_process_without_its_parent_ends(tmp_path):
    """And one whose parent lives does not"""
    command = f"PMOE_PARENT=$$ {sys.executable} -c '{HOLD}' & wait"
    process = subprocess.Popen(["bash", "-c", command], cwd=tmp_path)
    wait(lambda: (holder(tmp_path / "seed1") or {"token": ""})["token"])
    time.sleep(1.2)
    assert holder(tmp_path / "seed1")["alive"]
    process.kill()
    process.wait()
    wait(lambda: not holder(tmp_path / "seed1")["alive"])


def test_a_run_without_its_parent_ends_with_a_checkpoint(tmp_path):
    words = ["run", "sac", *flags("sac", env="Pendulum-v1", total_timesteps=10**6, checkpoint_every=10**6)]
    process = subprocess.Popen(
        ["bash", "-c", 'PMOE_PARENT=$$ "$@" >log & wait', "bash", PMOE, *words], cwd=tmp_path
    )
    wait(lambda: list(tmp_path.glob("runs/*/*/seed1/checkpoint/[0-9]*.pt")), 120)
    process.kill()
    process.wait()
    wait(lambda: "stopped at step" in (tmp_path / "log").read_text())
    wait(lambda: not list(tmp_path.rglob("*.claim")))
    (path,) = tmp_path.glob("runs/*/*/seed1")
    assert f"stopped at step {checkpoint(path)['step']};" in (tmp_path / "log").read_text()


def test_a_run_is_resumed_once(pmoe, pmoe_here, tmp_path):
    """The other is told so in a line, and the first goes on undisturbed."""
    words = ["run", "sac", *flags("sac", env="Pendulum-v1", total_timesteps=10**6, checkpoint_every=200)]
    process = subprocess.Popen([PMOE, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait(lambda: list(tmp_path.glob("runs/*/*/*/checkpoint/*200.pt")), 120)
    for option in ("--resume", "--overwrite"):
        again = pmoe_here(*words, option)
        assert again.returncode == 75 and again.stdout == ""
        assert f"is being trained by process {process.pid} on {socket.gethostname()}\n" in again.stderr
        assert len(again.stderr.splitlines()) == 1
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume goes on" in out
    assert not list(tmp_path.rglob("*.claim")) and not list(tmp_path.rglob("*.failed"))
