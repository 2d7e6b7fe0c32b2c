"""A run ends in exactly one state, whoever comes first."""

import threading

import pytest

from demo.server.runs import Run, Runs

VISITOR, GROUP, GO = "visitor", "work", 0


def test_a_terminal_state_is_set_once():
    run = Run()
    assert run.state == "waiting" and run.begin() and run.state == "running"
    assert run.finish("done") and run.state == "done"
    assert not run.finish("stopped") and not run.finish("failed") and not run.begin()
    assert run.state == "done"


def test_of_many_threads_one_ends_the_run():
    for _ in range(50):
        run, ready, won = Run(), threading.Barrier(6), []

        def end(state, run=run, ready=ready, won=won):
            ready.wait()
            if run.finish(state):
                won.append(state)

        run.begin()
        threads = [threading.Thread(target=end, args=(s,)) for s in ("done", "stopped", "failed")]
        threads += [threading.Thread(target=end, args=(s,)) for s in ("stopped",) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [run.state]


def test_what_waits_for_a_stop_is_called_once_and_not_after_the_end():
    run, called = Run(), []
    run.on_stop(lambda: called.append("before"))
    run.finish("stopped")
    run.finish("stopped")
    run.on_stop(lambda: called.append("after"))
    assert called == ["before", "after"]
    done = Run()
    done.on_stop(lambda: called.append("done"))
    done.finish("done")
    done.on_stop(lambda: called.append("done"))
    assert "done" not in called


def test_a_stop_that_arrives_first_holds():
    runs = Runs()
    runs.stop(VISITOR, "a")
    run = runs.open(VISITOR, GROUP, GO, "a")
    assert run.state == "stopped" and not run.begin() and not run.has_begun


def test_a_second_press_leaves_a_running_run_alone_and_its_id_names_that_run():
    runs = Runs()
    first = runs.open(VISITOR, GROUP, GO, "a")
    assert first.begin()
    assert runs.open(VISITOR, GROUP, GO, "b") is None
    assert runs.find(VISITOR, "b") is first
    assert runs.stop(VISITOR, "b") is first and first.state == "stopped"
    assert runs.open(VISITOR, GROUP, GO, "c").state == "waiting"


def test_a_second_press_takes_the_place_of_a_run_that_waits():
    runs = Runs()
    first, second = (runs.open(VISITOR, GROUP, GO, name) for name in "ab")
    assert first.state == "stopped" and second.state == "waiting"
    assert runs.is_latest(VISITOR, GROUP, second) and not runs.is_latest(VISITOR, GROUP, first)


def test_other_buttons_groups_and_visitors_go_on():
    runs = Runs()
    mine = runs.open(VISITOR, GROUP, GO, "a")
    others = [
        runs.open(VISITOR, GROUP, 1, "b"),
        runs.open(VISITOR, "arena", GO, "c"),
        runs.open("stranger", GROUP, GO, "a"),
    ]
    runs.stop(VISITOR, "a")
    assert mine.state == "stopped" and {run.state for run in others} == {"waiting"}


@pytest.mark.parametrize("limit", [3])
def test_old_runs_are_forgotten(limit):
    runs = Runs(limit)
    opened = [runs.open(VISITOR, f"group {i}", GO, str(i)) for i in range(5)]
    found = [runs.find(VISITOR, str(i)) for i in range(5)]
    assert found == [None, None, *opened[2:]]
    assert runs.find(VISITOR, "x" * 10_000) is None
