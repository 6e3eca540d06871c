"""Keeps two processes from training the same run: beside its directory a file says who does.

`seedN.claim` is created exclusively, names host and process, and is touched every BEAT seconds. It is dead when its
process is gone, which only its own machine can tell, or when nobody has touched it for DEAD seconds; then it is taken
over. Clocks of different machines need not agree: a claim that looks dead is watched before it is removed.
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
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def read(file: Path) -> dict:
    """machine, pid, token of a claim; half-written ones name nobody. FileNotFoundError: there is none."""
    try:
        return {"machine": "?", "pid": 0, "token": "", **json.loads(file.read_text())}
    except ValueError:
        return {"machine": "?", "pid": 0, "token": ""}


def holder(path: Path) -> dict | None:
    """Who has a claim on the run in `path`: machine, pid, token, whether it is certainly `gone` and, as far as one look
    can tell, `alive`; None: nobody"""
    file = beside(path, "claim")
    try:
        claim, age = read(file), time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None
    gone = False
    if claim["machine"] == machine():
        try:
            os.kill(claim["pid"], 0)
        except ProcessLookupError:
            gone = True
        except PermissionError:  # it is there, another user's
            pass
    return claim | {"gone": gone, "alive": age < DEAD and not gone}


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
        except FileNotFoundError:  # another, which was refused, has just removed the folder
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        except FileExistsError:
            other = holder(path)
        if other and (other["alive"] or not bury(path)):
            return False


def bury(path: Path) -> bool:
    """Removes a dead claim; False: it lives, or another process is at it. One at a time looks again and removes, so
    that nobody removes what another has created since it was looked at."""
    lock, file = beside(path, "burial"), beside(path, "claim")
    with contextlib.suppress(FileNotFoundError):
        try:
            lock.mkdir()
        except FileExistsError:
            if time.time() - lock.stat().st_mtime > DEAD:  # its process died in between
                lock.rmdir()
            return False
    try:
        claim, touched = holder(path), file.stat().st_mtime
        if claim and claim["alive"]:  # created since it was looked at
            return False
        if claim and not claim["gone"]:  # a clock may be wrong, or its machine has just woken
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
    """Claims runs while the body trains them. Where it raises or ends the program with status 1, `seedN.failed` stays
    beside the run. With PMOE_PARENT in the environment, the process ends as by SIGTERM when that one is gone.
    BlockingIOError: another process has a claim on one of them."""
    token, taken, made = uuid.uuid4().hex, [], []
    for folder in reversed([paths[0].parent, *paths[0].parent.parents]):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            made.append(folder)
    ended = threading.Event()
    try:
        for path in paths:
            if not take(path, token):
                other = holder(path) or {"pid": "?", "machine": "?"}
                where = other["machine"].split()[0]
                raise BlockingIOError(f"{path} is being trained by process {other['pid']} on {where}")
            taken.append(path)
            beside(path, "failed").unlink(missing_ok=True)
        threading.Thread(target=beat, args=(taken, token, ended), daemon=True).start()
        try:
            yield
        except (Exception, SystemExit) as error:
            for path in taken if not isinstance(error, SystemExit) or error.code == 1 else ():
                beside(path, "failed").touch()
            raise
    finally:
        ended.set()
        for path in taken:
            with contextlib.suppress(FileNotFoundError):
                if read(beside(path, "claim"))["token"] == token:
                    beside(path, "claim").unlink()
        for folder in reversed(made):  # what was refused leaves nothing
            with contextlib.suppress(OSError):
                folder.rmdir()


def beat(paths: list[Path], token: str, ended: threading.Event) -> None:
    """Keeps claims alive, until `ended`."""
    parent, touched = os.environ.get("PMOE_PARENT"), time.time()
    while not ended.wait(0.5):
        if parent and os.getppid() != int(parent):
            os.kill(os.getpid(), signal.SIGTERM)
            parent = None
        if time.time() - touched < BEAT:  # which counts the time that the machine slept
            continue
        touched = time.time()
        for path in paths:
            try:
                mine = read(beside(path, "claim"))["token"] == token
                os.utime(beside(path, "claim"))
            except FileNotFoundError:
                mine = False
            except OSError:  # a shared file system that does not answer; it may the next time
                continue
            if not mine and not ended.is_set():  # slept for longer than DEAD: another has gone on with the run
                print(f"error: another process has taken over {path}", file=sys.stderr, flush=True)
                os._exit(TAKEN)
