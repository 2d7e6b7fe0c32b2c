"""One Stop for everything that draws or trains.

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
from .status import error_line, status_line

if TYPE_CHECKING:
    from ..server.runs import Run, Runs

# In the browser: the ids of the runs that were started, by group, and the last one by button.
NEW_ID = """() => {
  const runs = window.glassboxRuns ??= {};
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2);
  runs[GROUP] = [...(runs[GROUP] ?? []), id].slice(-MAX_STOPPED);
  return runs[BUTTON] = id;
}"""
SEND_ID = "(id, ...values) => [window.glassboxRuns[BUTTON], ...values]"
# Stop also dims the line until the run has really ended.
STOP_IDS = """() => {
  document.querySelector(STATUS + ' .gb-running')?.classList.add('gb-stopping');
  return (window.glassboxRuns?.[GROUP] ?? []).join(' ');
}"""
MAX_STOPPED = 8  # runs of a group that one press of Stop may name: the last ones

Update = dict[Any, Any]  # {component: its value, or gr.update(...)}


@dataclass(frozen=True)
class Final:
    """The last update of a run: its result."""

    update: Update


Updates = Generator[Update | Final | None, None, None]  # None after a step without an update
MakeUpdates = Callable[..., Updates]  # of (run, language, *input values)


class StopButton:
    """A Stop button with its status line, and the listeners whose runs it stops.

    group: a name of its own. stopped_line: (run.progress, language) -> the status line of a run
    that was stopped. waiting: the text of a run that waits for its turn.
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
        """Let an event such as `button.click` start a run.

        make_updates(run, language, *values of inputs) yields updates of `outputs` and the status
        line, None after a step without one, and a Final. It is closed when the run is stopped or
        its visitor leaves. It sets run.progress for `stopped_line`.
        listener: of Gradio's event listener, such as the queue's concurrency.
        """

        button, self._buttons = self._buttons, self._buttons + 1

        def stream(request: gr.Request, run_id: str, *values: Any) -> Generator[Update]:
            session, language = request.session_hash or "", request_language(request)
            run = self.runs.find(session, run_id)
            if run is None:
                return
            if not run.begin():
                yield from self._stopped(run, session, language)
                return
            yield from self._follow(run, session, language, make_updates(run, language, *values))

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

    def _open(self, button: int, run_id: str, request: gr.Request) -> str:
        session, language = request.session_hash or "", request_language(request)
        run = self.runs.open(session, self.group, button, run_id)
        if run is None:  # the one before runs on, untouched
            raise gr.Error("busy", visible=False, print_exception=False)
        if run.state == "stopped":
            return self.stopped_line(None, language)
        return status_line("running", say(self.waiting, language))

    def _stop(self, run_ids: str, request: gr.Request) -> Any:
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
        """Yield updates until there is a terminal state, then what shows that state."""
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
        """Show that a run was stopped, unless the visitor has started another one since."""
        if run.state == "stopped" and self.runs.is_latest(session, self.group, run):
            yield {self.status: self.stopped_line(run.progress, language)}

    def _script(self, template: str, button: int = 0) -> str:
        values = {"GROUP": self.group, "BUTTON": f"{self.group} {button}"}
        values["STATUS"] = f"#{self.status.elem_id}"
        for name, value in values.items():
            template = template.replace(name, json.dumps(value))
        return template.replace("MAX_STOPPED", str(MAX_STOPPED))
