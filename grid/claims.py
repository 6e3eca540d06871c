"""Keeps two processes from training the same run: beside its directory a file says who does.

`seedN.claim` is created exclusively, names host and process, and is touched every BEAT seconds. It is dead
when its process is gone, which only its own machine can tell, or when nobody has touched it for DEAD seconds;
then it is taken over. Clocks of different machines need not agree: a claim that looks dead is watched before
it is removed, and one that is seen to be touched is alive, whatever its time says.
"""

import contextlib
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

BEAT, DEAD = 5.0, 120.0  # seconds
TAKEN = 75  # exit status where another process has the run
REFUSED = (2, TAKEN)  # exit statuses where a run was not begun
LONGEST = 4096  # bytes of a claim; it has some 150
NOBODY: dict = {"machine": "?", "pid": 0, "token": ""}  # of a damaged claim

# Of each claim that this process has looked at: when it was touched and, where that was since the look
# before, when this process saw it, by its own clock
seen: dict[Path, tuple[float, float | None]] = {}


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


def look(file: Path) -> tuple[dict, float]:
    """A claim's machine, pid and token, and when it was touched. FileNotFoundError: there is none."""
    found = file.lstat()
    # To open a FIFO or a device may be to wait for ever.
    if not stat.S_ISREG(found.st_mode):
        return NOBODY, found.st_mtime
    with open(file, "rb") as claim:
        text = claim.read(LONGEST)
        # A shared file system asks its server at the opening; before, it may say what it remembers.
        found = os.fstat(claim.fileno())
    return parse(text), found.st_mtime


def parse(text: bytes) -> dict:
    """What a claim says; a damaged or half-written one names nobody."""
    try:
        content = json.loads(text)
        claim = {name: content[name] for name in NOBODY}
    except (ValueError, KeyError, TypeError, RecursionError):
        return NOBODY
    host, pid, token = claim.values()
    if type(host) is not str or type(pid) is not int or type(token) is not str:
        return NOBODY
    # To os.kill, 0 and what is negative are whole groups of processes.
    if not 0 < pid < 2**31:
        return NOBODY
    # It is shown on a terminal.
    if not host.strip() or not host.isprintable():
        return NOBODY
    return claim


def holder(path: Path) -> dict | None:
    """Who has a claim on the run in `path`: machine, pid, token, whether it is certainly `gone` and, as far
    as looks by now can tell, `alive`; None: nobody"""
    file = beside(path, "claim")
    try:
        claim, touched = look(file)
    except FileNotFoundError:
        return None
    gone = has_ended(claim)
    beat_at = last_beat(file, touched)
    if beat_at is None:
        recent = abs(time.time() - touched) < DEAD and not of_another_boot(claim)
    else:
        recent = time.monotonic() - beat_at < DEAD
    return claim | {"gone": gone, "alive": recent and not gone}


def has_ended(claim: dict) -> bool:
    """Whether a claim's process is certainly gone"""
    if claim["machine"] != machine():
        return False
    try:
        os.kill(claim["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is there, another user's
    return False


def of_another_boot(claim: dict) -> bool:
    """Whether a claim was made before this machine started. It may also be of a living machine with the same
    name, so that it is watched before it is removed."""
    host, *boot = claim["machine"].split()[:2]
    this_host, *this_boot = machine().split()[:2]
    return host == this_host and boot != this_boot


def last_beat(file: Path, touched: float) -> float | None:
    """When, by this process's clock, it saw that a claim had been touched again; None: it has not seen it"""
    before, beat_at = seen.get(file, (touched, None))
    if touched > before:
        beat_at = time.monotonic()
    if touched < before:
        beat_at = None
    seen[file] = (touched, beat_at)
    return beat_at


def alive(path: Path) -> bool:
    claim = holder(path)
    return claim is not None and claim["alive"]


def take(path: Path, token: str) -> bool:
    """Claims a run for this process; False: another has it. OSError: the disk is full or read-only."""
    file = beside(path, "claim")
    claim = json.dumps({"machine": machine(), "pid": os.getpid(), "token": token})
    while True:
        try:
            create(file, claim)
            return True
        except FileNotFoundError:
            # Another process, which was refused, has just removed the folder.
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        except FileExistsError:
            other = holder(path)
        if other and (other["alive"] or not bury(path)):
            return False


def create(file: Path, text: str) -> None:
    """Writes a new file whole or not at all. FileExistsError: it is there."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(handle, "w") as new:
            new.write(text)
    except BaseException:
        # The disk is full: an empty claim would keep everybody out until it is old.
        file.unlink()
        raise


def bury(path: Path) -> bool:
    """Removes a dead claim; False: it lives, or another process is at it. One at a time looks again and
    removes, so that nobody removes what another has created since it was looked at."""
    lock, file = beside(path, "burial"), beside(path, "claim")
    try:
        dead = look(file)
        other = holder(path)
        if other is None:
            return True
        if other["alive"]:
            return False
        if not other["gone"] and not silent(path, dead):
            return False
        lock.mkdir()
    except FileNotFoundError:
        return True
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            # Its process died in between, or a clock is wrong.
            if abs(time.time() - lock.stat().st_mtime) > DEAD:
                lock.rmdir()
        return False
    try:
        if look(file) == dead:
            remove(file)
    except FileNotFoundError:
        pass
    finally:
        with contextlib.suppress(FileNotFoundError):
            lock.rmdir()
    return True


def silent(path: Path, before: tuple[dict, float]) -> bool:
    """Whether nobody touches a claim while it is watched: for two beats or, where its time lies ahead and
    does not tell for how long nobody has, for as long as makes it dead"""
    _, touched = before
    seconds = DEAD if touched > time.time() else 2 * BEAT
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"waiting {seconds:.0f} s for a sign of life: {trained_by(path)}", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(BEAT / 2)
        if look(beside(path, "claim")) != before:
            return False
    return True


def remove(file: Path) -> None:
    """OSError: it is a folder with something in it."""
    try:
        file.unlink()
    except (IsADirectoryError, PermissionError):
        file.rmdir()


@contextlib.contextmanager
def claimed(paths: list[Path]) -> Iterator[None]:
    """Claims runs while the body trains them. Where it raises or ends the program with status 1,
    `seedN.failed` stays beside the run; where it refuses to begin, that is left as it was. With PMOE_PARENT
    in the environment, the process ends as by SIGTERM when that one is gone. BlockingIOError: another process
    has a claim on one of them."""
    token = uuid.uuid4().hex
    taken = []
    failed: list[Path] = []  # before
    made = make_folders(paths[0].parent)
    ended = threading.Event()
    try:
        for path in paths:
            if not take(path, token):
                raise BlockingIOError(trained_by(path))
            taken.append(path)
        failed = [path for path in taken if beside(path, "failed").exists()]
        for path in failed:
            beside(path, "failed").unlink(missing_ok=True)
        threading.Thread(target=beat, args=(taken, token, ended), daemon=True).start()
        try:
            yield
        except (Exception, SystemExit) as error:
            if not isinstance(error, SystemExit) or error.code == 1:
                mark_failed(taken)
            elif error.code in REFUSED:
                mark_failed(failed)
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
    other = holder(path) or NOBODY
    if not other["pid"]:
        return f"{beside(path, 'claim')} names no process; if none trains this run, remove it"
    host = other["machine"].split()[0]
    return f"{path} is being trained by process {other['pid']} on {host}"


def mark_failed(paths: list[Path]) -> None:
    for path in paths:
        beside(path, "failed").touch()


def holds(path: Path, token: str) -> bool:
    """Whether the claim on a run is the one with this token. FileNotFoundError: there is none."""
    claim, _ = look(beside(path, "claim"))
    return claim["token"] == token


def beat(paths: list[Path], token: str, ended: threading.Event) -> None:
    """Keeps claims alive, until `ended`."""
    parent = os.environ.get("PMOE_PARENT")
    touched = time.time()  # which counts the time that the machine slept, and may be set back
    while not ended.wait(0.5):
        if parent and str(os.getppid()) != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            parent = None
        if 0 <= time.time() - touched < BEAT:
            continue
        touched = time.time()
        for path in paths:
            try:
                held = holds(path, token)
                if held:
                    os.utime(beside(path, "claim"))
            except FileNotFoundError:
                held = False
            except OSError:
                continue  # a shared file system that does not answer; it may the next time
            # This process has slept for longer than DEAD, and another has gone on with the run.
            if not held and not ended.is_set():
                print(f"error: another process has taken over {path}", file=sys.stderr, flush=True)
                os._exit(TAKEN)
