"""Keeps two processes from training the same run: beside its directory a file says who does.

`seedN.claim` is created exclusively, names host and process, and is touched every BEAT seconds. It is dead
when its process is gone, which only its own machine can tell, or when nobody has touched it for DEAD seconds;
then it is taken over. Clocks of different machines need not agree: a claim that looks dead is watched before
it is removed.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

BEAT, DEAD = 5.0, 120.0  # seconds
TAKEN = 75  # exit status where another process has the run


def machine() -> str:
    """What tells whether a process number means something here: host, boot and namespace of processes"""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # of Linux
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return " ".join(parts)


def beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def read_claim(file: Path) -> dict:
    """machine, pid, token of a claim; half-written ones name nobody. FileNotFoundError: there is none."""
    nobody = {"machine": "?", "pid": 0, "token": ""}
    try:
        return nobody | json.loads(file.read_text())
    except ValueError:
        return nobody


def holder(path: Path) -> dict | None:
    """Who has a claim on the run in `path`: machine, pid, token, whether it is certainly `gone` and, as far
    as one look can tell, `alive`; None: nobody"""
    file = beside(path, "claim")
    try:
        claim = read_claim(file)
        touched = file.stat().st_mtime
    except FileNotFoundError:
        return None
    gone = False
    if claim["machine"] == machine():
        try:
            os.kill(claim["pid"], 0)
        except ProcessLookupError:
            gone = True
        except PermissionError:
            pass  # it is there, another user's
    recent = time.time() - touched < DEAD
    return claim | {"gone": gone, "alive": recent and not gone}


def alive(path: Path) -> bool:
    claim = holder(path)
    return claim is not None and claim["alive"]


def take(path: Path, token: str) -> bool:
    """Claims a run for this process; False: another has it. OSError: the disk is full or read-only."""
    file = beside(path, "claim")
    claim = json.dumps({"machine": machine(), "pid": os.getpid(), "token": token})
    while True:
        try:
            with open(file, "x") as new:
                new.write(claim)
            return True
        except FileNotFoundError:
            # Another process, which was refused, has just removed the folder.
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        except FileExistsError:
            other = holder(path)
        if other and (other["alive"] or not bury(path)):
            return False


def bury(path: Path) -> bool:
    """Removes a dead claim; False: it lives, or another process is at it. One at a time looks again and
    removes, so that nobody removes what another has created since it was looked at."""
    lock, file = beside(path, "burial"), beside(path, "claim")
    with contextlib.suppress(FileNotFoundError):
        try:
            lock.mkdir()
        except FileExistsError:
            age = time.time() - lock.stat().st_mtime
            # Its process died in between.
            if age > DEAD:
                lock.rmdir()
            return False
    try:
        claim, touched = holder(path), file.stat().st_mtime
        if claim and claim["alive"]:
            return False  # created since it was looked at
        if claim and not claim["gone"]:
            # A clock may be wrong, or its machine has just woken.
            time.sleep(2 * BEAT)
            if file.stat().st_mtime != touched:
                return False
        if claim:
            file.unlink()
        return True
    except FileNotFoundError:
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            lock.rmdir()


@contextlib.contextmanager
def claimed(paths: list[Path]) -> Iterator[None]:
    """Claims runs while the body trains them. Where it raises or ends the program with status 1,
    `seedN.failed` stays beside the run. With PMOE_PARENT in the environment, the process ends as by SIGTERM
    when that one is gone. BlockingIOError: another process has a claim on one of them."""
    token = uuid.uuid4().hex
    taken = []
    made = make_folders(paths[0].parent)
    ended = threading.Event()
    try:
        for path in paths:
            if not take(path, token):
                raise BlockingIOError(trained_by(path))
            taken.append(path)
            beside(path, "failed").unlink(missing_ok=True)
        threading.Thread(target=beat, args=(taken, token, ended), daemon=True).start()
        try:
            yield
        except (Exception, SystemExit) as error:
            if not isinstance(error, SystemExit) or error.code == 1:
                mark_failed(taken)
            raise
    finally:
        ended.set()
        for path in taken:
            with contextlib.suppress(FileNotFoundError):
                if holds(path, token):
                    beside(path, "claim").unlink()
        # What was refused leaves nothing behind.
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def make_folders(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns the new ones."""
    made = []
    for each in reversed([folder, *folder.parents]):
        if not each.exists():
            each.mkdir(exist_ok=True)
            made.append(each)
    return made


def trained_by(path: Path) -> str:
    """Which process has a claim on a run, in a sentence"""
    other = holder(path) or {"pid": "?", "machine": "?"}
    host = other["machine"].split()[0]
    return f"{path} is being trained by process {other['pid']} on {host}"


def mark_failed(paths: list[Path]) -> None:
    for path in paths:
        beside(path, "failed").touch()


def holds(path: Path, token: str) -> bool:
    """Whether the claim on a run is the one with this token. FileNotFoundError: there is none."""
    return read_claim(beside(path, "claim"))["token"] == token


def beat(paths: list[Path], token: str, ended: threading.Event) -> None:
    """Keeps claims alive, until `ended`."""
    parent = os.environ.get("PMOE_PARENT")
    touched = time.time()  # which counts the time that the machine slept
    while not ended.wait(0.5):
        if parent and os.getppid() != int(parent):
            os.kill(os.getpid(), signal.SIGTERM)
            parent = None
        if time.time() - touched < BEAT:
            continue
        touched = time.time()
        for path in paths:
            try:
                held = holds(path, token)
                os.utime(beside(path, "claim"))
            except FileNotFoundError:
                held = False
            except OSError:
                continue  # a shared file system that does not answer; it may the next time
            # This process has slept for longer than DEAD, and another has gone on with the run.
            if not held and not ended.is_set():
                print(f"error: another process has taken over {path}", file=sys.stderr, flush=True)
                os._exit(TAKEN)
