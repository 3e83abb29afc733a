"""Where jobs are computed, one at a time each: processes of this machine, and those that Ray's actors hold."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe, connection
from pathlib import Path
from typing import Any, Protocol

from retemper.core import output, processes, ray_capacity, ray_session

POLL = 0.5  # s between looks at the clock
END = 10.0  # s for an actor to answer that it has ended what it holds
LAST = ("done", "error", "died")
Message = tuple[str, bytes]  # begun, progress or one of LAST; and, pickled, what it says
SERVE = "import sys; _, fd, up, *sys.path = sys.argv; from retemper.core.executor.places import serve; serve(fd, up)"


class Place(Protocol):
    """Computes one job at a time."""

    def submit(self, call: bytes) -> None:
        """Start a job: a pickled function and its arguments."""

    def messages(self) -> Iterator[Message]:
        """What has come of the job since the last look, without waiting."""

    def kill(self) -> None:
        """End it with all it started."""


def make(cluster: bool, gpus: float, log: Path | None) -> Place:
    """A new place."""
    return Remote(gpus) if cluster else Local(log)


def wait(busy: Iterable[Place]) -> None:
    """Until one of them has a message, or a moment has passed."""
    pipes = [place.pipe for place in busy if isinstance(place, Local)]
    streams = [place.stream for place in busy if isinstance(place, Remote)]
    if pipes:
        connection.wait(pipes, POLL)
    elif streams:
        import ray

        ray.wait(streams, timeout=POLL)


class Local:
    """A process of this machine, the first of its group. It does not import the parent's main module."""

    def __init__(self, log: Path | None = None):
        self.pipe, other = Pipe()
        command = [sys.executable, "-c", SERVE, str(other.fileno()), str(os.getpid()), *sys.path]
        with other, contextlib.nullcontext() if log is None else log.open("ab") as file:
            self.process = subprocess.Popen(
                command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0
            )

    def submit(self, call: bytes) -> None:
        """Start a job; whether the process lives is seen in its messages."""
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(call)

    def messages(self) -> Iterator[Message]:
        """The last one of a process that died says how."""
        try:
            while self.pipe.poll():
                yield pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
            yield "died", pickle.dumps(f"exit code {self.process.returncode}")

    def kill(self) -> None:
        """The group, and descendants in groups of their own."""
        import psutil

        family: list[Any] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self.pipe.close()


class Remote:
    """An actor of Ray, somewhere on the cluster."""

    def __init__(self, gpus: float):
        import ray

        host: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(Host)
        self.actor = host.options(max_concurrency=2).remote()  # `end` beside `run`

    def submit(self, call: bytes) -> None:
        """Start a job."""
        self.stream: Any = self.actor.run.options(num_returns="streaming").remote(call)

    def messages(self) -> Iterator[Message]:
        """An actor or a node that died says so."""
        import ray

        try:
            while ray.wait([self.stream], timeout=0)[0]:
                yield ray.get(next(self.stream))
        except StopIteration:
            return
        except ray.exceptions.RayError as error:
            yield "died", pickle.dumps(f"{type(error).__name__}: {str(error)[:200]}")

    def kill(self) -> None:
        """First what it holds: Ray itself would kill that process, and leave what it had started."""
        import ray

        ray.wait([self.actor.end.remote()], timeout=END)
        ray.kill(self.actor)


class Host:
    """What an actor does: it holds a process."""

    def __init__(self) -> None:
        self.place = Local()

    def run(self, call: bytes) -> Iterator[Message]:
        """Messages of a job."""
        self.place.submit(call)
        kind = ""
        while kind not in LAST:
            wait([self.place])
            for kind, content in self.place.messages():
                yield kind, content

    def end(self) -> None:
        """Kill the process with all it started."""
        self.place.kill()


@contextlib.contextmanager
def join_ray(device: str, gpus: float) -> Iterator[int]:
    """Ray within the block, the one of before where there is one; yields how many jobs it holds."""
    import ray

    session = contextlib.nullcontext(True) if ray.is_initialized() else ray_session.session(device, processes.cores())
    with session as cluster:
        ray_capacity.require({"CPU": 1, "GPU": gpus}, cluster=cluster)
        yield ray_capacity.places(gpus)


# ------------------------------------------------------------------ in a process

_send: Callable[[str, bytes], None] | None = None  # to who waits for the job


def report(content: Any) -> None:
    """Send `content` to the `progress` of the job that runs in this process."""
    if _send is not None:
        _send("progress", pickle.dumps(content))


def serve(descriptor: str, parent: str) -> None:
    """Work off jobs until the pipe is closed."""
    global _send
    processes.die_with_parent(group=True, parent=int(parent))
    output.show()
    os.set_inheritable(int(descriptor), False)  # what a job starts must not hold the pipe open
    pipe: Any = connection.Connection(int(descriptor))

    def send(kind: str, content: bytes) -> None:
        pipe.send_bytes(pickle.dumps((kind, content)))

    _send = send
    while True:
        try:
            call = pipe.recv_bytes()
        except EOFError:
            return
        send(*_answer(call))


def _answer(call: bytes) -> Message:
    try:
        function, arguments = pickle.loads(call)
        assert _send is not None
        _send("begun", pickle.dumps(None))
        return "done", pickle.dumps(function(*arguments))
    except Exception as error:  # whatever it is, it is raised where the job was submitted
        origin = f"in process {os.getpid()}:\n{traceback.format_exc()}"
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # pickle cannot carry it
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return "error", pickle.dumps((error, origin))
