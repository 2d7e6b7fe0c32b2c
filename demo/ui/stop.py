"""The Stop button, the same for everything that draws or trains.

The server holds each run's state (server/runs.py): Stop sets it to stopped, and the run's own
generator ends at its next step and shows the terminal state as its last update. Nothing else writes
the status line of a running run, so nothing can arrive after that update. Only for a run that still
waits in the queue, Stop shows the state itself and takes the run out of the queue.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from ..texts import request_language, say
from .failures import FAILURES, error_sentence, error_toast, hide_internal_errors
from .listeners import PRIVATE, UNQUEUED
from .refusal import button_of, show_refusal
from .status import error_line, status_line

if TYPE_CHECKING:
    from ..server.runs import Run, Runs

# JavaScript. window.glassboxRuns keeps the ids of the last runs of each group of buttons, and the
# id of the last run of each button. `_script` fills in GROUP, BUTTON, STATUS and MAX_STOPPED.
NEW_ID = """() => {
  const runs = window.glassboxRuns ??= {};
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2);
  runs[GROUP] = [...(runs[GROUP] ?? []), id].slice(-MAX_STOPPED);
  return runs[BUTTON] = id;
}"""
SEND_ID = "(id, ...values) => [window.glassboxRuns[BUTTON], ...values]"
# Stop also dims the status line until the run has really ended.
STOP_IDS = """() => {
  document.querySelector(STATUS + ' .gb-running')?.classList.add('gb-stopping');
  return (window.glassboxRuns?.[GROUP] ?? []).join(' ');
}"""
MAX_STOPPED = 8  # one press of Stop stops at most the last 8 runs of its group

Update = dict[Any, Any]  # {component: its value, or gr.update(...)}


@dataclass(frozen=True)
class Final:
    """The last update of the page from a run, one press of a button that draws or trains.

    update: a dict from component to its new value, which shows the result. It is dropped if the run
    was stopped before.
    """

    update: Update


Updates = Generator[Update | Final | None, None, None]  # None after a step without an update
MakeUpdates = Callable[..., Updates]  # called with (run, language, *input values)


class StopButton:
    """A Stop button with its status line. It stops what the buttons added with `add` have started.

    A run is one press of such a button.

    runs: the states of the server's runs
    group: a name that no other Stop button of the page has
    status: the component that shows the status line of the runs
    stopped_line: stopped_line(run.progress, language) returns the status line of a stopped run
    waiting: the text key of the status line of a run that waits in the queue
    """

    def __init__(
        self,
        runs: Runs,
        group: str,
        button: gr.Button,
        status: gr.HTML,
        stopped_line: Callable[[Any, str], str],
        waiting: str = "waiting",
    ):
        self.runs, self.group, self.status = runs, group, status
        self.stopped_line, self.waiting = stopped_line, waiting
        self._buttons = 0
        self._again: str | None = None  # elem_id of the button that was added last
        self._run_id = gr.Textbox(visible=False)  # its value comes from the browser's scripts
        self._withdrawn = gr.State()  # the id of the run that is taken out of the queue
        button.click(
            self._stop,
            self._run_id,
            [status, self._withdrawn],
            js=self._script(STOP_IDS),
            **UNQUEUED,
        )

    def add(
        self,
        event: Callable[..., Dependency],
        make_updates: MakeUpdates,
        inputs: Sequence[Component],
        outputs: Sequence[Component],
        **listener: Any,
    ) -> None:
        """Make an event such as `button.click` start work (a run) that the Stop button can stop.

        make_updates: a generator function, called with (run, language, *values of `inputs`). It
            yields updates of `outputs` and the status line, or None after a step without one, and
            at the end a Final, the updates that show the result. It sets run.progress, from which
            the status line of a stopped run is made. The generator is closed when the run is
            stopped or its visitor leaves.
        listener: further arguments of Gradio's event listener, such as `concurrency_id`.
        """

        button, self._buttons = self._buttons, self._buttons + 1

        def stream(request: gr.Request, run_id: str, *values: Any) -> Generator[Update]:
            session, language = request.session_hash or "", request_language(request)
            run = self.runs.find(session, run_id)
            if run is None:
                return
            run.visitor = self.runs.identify(request)
            if not run.begin():
                yield from self._stopped(run, session, language)
                return
            try:
                yield from self._follow(
                    run, session, language, make_updates(run, language, *values)
                )
            finally:
                run.progress = None  # the run is remembered, its pictures are not

        def open_run(run_id: str, request: gr.Request) -> str:
            return self._open(button, run_id, request)

        opened = event(
            open_run,
            self._run_id,
            self.status,
            js=self._script(NEW_ID, button),
            trigger_mode="multiple",
            **UNQUEUED,
        )
        running = opened.success(
            stream,
            [self._run_id, *inputs],
            [*outputs, self.status],
            js=self._script(SEND_ID, button),
            trigger_mode="multiple",
            **PRIVATE | listener,
        )
        self._withdrawn.change(None, None, None, cancels=[running], **UNQUEUED)
        self._again = button_of(opened) or self._again
        show_refusal(running, self.runs.refusals, self.status, self._again)

    def _open(self, button: int, run_id: str, request: gr.Request) -> str:
        """Register the run that a press of a button has started, and show that it waits.

        Returns the HTML status line. If the visitor pressed Stop before this request arrived, the
        line says that the run was stopped. button: the button's index among those added. run_id:
        made by the browser. If an earlier run of the button is still running, no run is registered
        and gr.Error is raised, which the page does not show.
        """
        session, language = request.session_hash or "", request_language(request)
        run = self.runs.open(session, self.group, button, run_id)
        if run is None:  # the one before runs on, untouched
            raise gr.Error("busy", visible=False, print_exception=False)
        if run.state == "stopped":
            return self.stopped_line(None, language)
        return status_line("running", say(self.waiting, language))

    def _stop(self, run_ids: str, request: gr.Request) -> Any:
        """Stop the runs with the given ids, because the visitor has pressed Stop.

        run_ids: separated by spaces, the newest last. Returns updates of the status line and of the
        id of the run that the browser takes out of the queue. Both change only if the newest run
        was still waiting in the queue; a run that has begun updates the status line itself.
        """
        session, language = request.session_hash or "", request_language(request)
        named = run_ids.split()[-MAX_STOPPED:]
        stopped = [self.runs.stop(session, run_id) for run_id in named]
        if not stopped or stopped[-1].state != "stopped" or stopped[-1].has_begun:
            return gr.skip(), gr.skip()
        return self.stopped_line(None, language), named[-1]

    def _follow(
        self,
        run: Run,
        session: str,
        language: str,
        updates: Updates,
    ) -> Generator[Update]:
        """Yield the page's updates from a run (one press of a button) until it has ended.

        The last update shows the result, the error, or that the run was stopped. updates: what the
        generator function given to `add` yields.
        """
        try:
            with hide_internal_errors():
                for update in updates:
                    if isinstance(update, Final):
                        if run.finish("done"):
                            yield update.update
                        break
                    if update and run.state == "running":
                        yield update
                    if run.state == "stopped":
                        break
        except FAILURES as error:
            if run.finish("failed"):
                sentence = error_sentence(error, language)
                yield {self.status: error_line(sentence)}
                raise error_toast(sentence, language) from None
        finally:
            updates.close()
            run.finish("stopped")  # its visitor left; no change where it has ended
        yield from self._stopped(run, session, language)

    def _stopped(self, run: Run, session: str, language: str) -> Generator[Update]:
        """Yield an update of the status line, which then says that the visitor has stopped `run`.

        Yields nothing if the run was not stopped, or if the visitor has started a newer run of this
        Stop button, which uses the same status line. session: the visitor's Gradio session.
        """
        if run.state == "stopped" and self.runs.is_latest(session, self.group, run):
            yield {self.status: self.stopped_line(run.progress, language)}

    def _script(self, template: str, button: int = 0) -> str:
        """Fill the names and ids that belong to this Stop button into a JavaScript template.

        They replace GROUP (the button's `group`), BUTTON (the name of the button with the index
        `button` among those that start runs), STATUS (CSS selector of the status line) and
        MAX_STOPPED.
        """
        values = {"GROUP": self.group, "BUTTON": f"{self.group} {button}"}
        values["STATUS"] = f"#{self.status.elem_id}"
        for name, value in values.items():
            template = template.replace(name, json.dumps(value))
        return template.replace("MAX_STOPPED", str(MAX_STOPPED))
