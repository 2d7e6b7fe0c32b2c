"""A task that ends or blocks its process fails alone; the others have their results, in order."""

import os
import time

import pytest

from kernels.bench.isolated import ChildProcess, Failure, run_isolated

pytestmark = pytest.mark.quick

WORK = """
import os, time
from kernels.bench.isolated import Failure

def work(task):
    if task == "exit":
        os._exit(7)
    if task == "hang":
        time.sleep(600)
    if task == "raise":
        raise ValueError("first\\nsecond")
    if task == "give up":
        return Failure("damaged", new_process=True)
    return task, os.getpid()
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "isolated_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    import isolated_work

    return isolated_work.work


def test_results_are_in_order_and_failures_cost_one_task(work):
    tasks = [1, "exit", 2, "raise", 3, "give up", 4]
    one, died, two, raised, three, damaged, four = run_isolated(work, tasks, 30)
    assert died == Failure("crashed: its process ended with exit code 7")
    assert raised == Failure("failed: first")
    assert damaged == Failure("damaged", True)
    assert [one[0], two[0], three[0], four[0]] == [1, 2, 3, 4]
    assert one[1] != two[1] == three[1] != four[1]  # processes, none of them this one
    assert os.getpid() not in (one[1], two[1], four[1])


def test_a_hanging_task_is_ended_while_others_run(work):
    hung, *others = run_isolated(work, ["hang", 1, 2, 3], 2, processes=2)
    assert hung == Failure("hangs: no answer within 2 seconds")
    assert [x[0] for x in others] == [1, 2, 3]


def test_stopping_early_leaves_no_process_behind(work):
    results = run_isolated(work, [1, "hang", "hang"], 60)
    _, pid = next(results)
    results.close()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("The process still runs.")


def test_a_process_that_does_not_start_says_so(work, monkeypatch, tmp_path):
    (tmp_path / "isolated_work.py").write_text("raise ImportError")
    child = ChildProcess(work, 5)
    assert child.run(1).reason.startswith("its process did not start: crashed:")
    assert list(run_isolated(work, [], 5)) == []
