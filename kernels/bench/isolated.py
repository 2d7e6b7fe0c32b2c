"""Run tasks in child processes that may crash or hang: only the task that did so has failed."""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")
START_LIMIT = 300  # seconds in which a child process must have imported its function


class Failure(NamedTuple):
    """Why a task that was given to a child process has no result.

    reason        one sentence or phrase
    new_process   whether the process must run no other task, because this one may have damaged its
                  memory or its GPU context
    """

    reason: str
    new_process: bool = False

    @classmethod
    def of(cls, what: str, error: BaseException, new_process: bool = False) -> Failure:
        """Return a Failure whose reason is "WHAT: the first line of the error's message".

        what: what went wrong, such as "does not compile". new_process: whether the process that
        raised the error must be replaced before it runs another task.
        """
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return cls(f"{what}: {text}", new_process)


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """Run tasks in a child process: answer each with `function`'s result or a Failure.

    Tasks come and answers go through `connection`; None is sent first, to say that the process has
    started. Returns when the parent closes its end.
    """
    connection.send(None)  # it has started
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            answer = function(task)
        except Exception as error:  # compilers, drivers and kernels raise errors of many types
            answer = Failure.of("failed", error)
        connection.send(answer)


class ChildProcess(Generic[T, R]):
    """A process that runs `function` on one task at a time, as a task may crash it or hang.

    It is then replaced by a new one for the next task.
    function   importable by its name, takes a task and returns its result or a Failure; both are
               pickled
    limit      seconds after which a task without an answer counts as hanging
    """

    def __init__(self, function: Callable[[T], R | Failure], limit: float) -> None:
        self.function, self.limit = function, limit
        self.process: multiprocessing.process.BaseProcess | None = None
        self.connection: Connection

    def run(self, task: T) -> R | Failure:
        """Run this object's `function` on `task` in the child process and return its result.

        Starts the process if none is running. Returns a Failure instead if the function returned
        one or raised an exception, or if the process crashed, hung or could not be started.
        """
        if self.process is None and (failure := self._start()):
            return failure
        answer: R | Failure
        try:
            self.connection.send(task)
            if not self.connection.poll(self.limit):
                self.stop()
                return Failure(f"hangs: no answer within {self.limit:g} seconds")
            answer = self.connection.recv()
        except (EOFError, OSError):
            return Failure(self._death())
        if isinstance(answer, Failure) and answer.new_process:
            self.stop()
        return answer

    def stop(self) -> None:
        """End the process, whatever it is doing; the next task starts a new one."""
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.join()
            self.process = None

    def _start(self) -> Failure | None:
        context = multiprocessing.get_context("spawn")  # a fork could not use the GPU
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        try:
            if self.connection.poll(START_LIMIT):
                self.connection.recv()
                return None
            self.stop()
            return Failure(f"its process did not start within {START_LIMIT} seconds")
        except (EOFError, OSError):
            return Failure(f"its process did not start: {self._death()}")

    def _death(self) -> str:
        """Return how a crashed process ended, "crashed: its process ended by SIGSEGV"."""
        assert self.process is not None
        self.process.join(10)  # its end of the connection is closed, so it is ending
        code = self.process.exitcode
        self.stop()
        if code is not None and code < 0:
            return f"crashed: its process ended by {signal.Signals(-code).name}"
        return f"crashed: its process ended with exit code {code}"


def run_isolated(
    function: Callable[[T], R | Failure], tasks: Sequence[T], limit: float, processes: int = 1
) -> Iterator[R | Failure]:
    """Run `function` on each task in child processes; yield results in the order of the tasks.

    A task whose process crashes, or has no answer after `limit` seconds, yields a Failure; the rest
    goes on in a new process. function: importable by its name, takes a task and returns its result
    or a Failure; both are pickled. processes: how many run tasks at the same time.
    """
    processes = max(1, min(processes, len(tasks)))
    children = [ChildProcess(function, limit) for _ in range(processes)]
    idle: queue.SimpleQueue[ChildProcess[T, R]] = queue.SimpleQueue()
    for child in children:
        idle.put(child)

    def run(task: T) -> R | Failure:
        child = idle.get()
        try:
            return child.run(task)
        finally:
            idle.put(child)

    threads = ThreadPoolExecutor(processes)
    try:
        yield from threads.map(run, tasks)
    finally:  # also if the caller stops early
        threads.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.stop()
