"""The event handlers of the tab Look inside: open, branch, draw again, export and import."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import gradio as gr

from pipeline import tasks
from pipeline.errors import InputError
from pipeline.introspection import recording_file
from pipeline.introspection.branch import BranchRun, ReplayRun
from pipeline.introspection.recording import Recorder, Recording

from ...events import Finished
from ...page import Page
from ...server.runner import MODEL_FIELDS, report_events, task_fields
from ...server.runs import Run
from ...server.zerogpu import ON_ZERO_GPU
from ...texts import request_language, say
from ...ui.failures import FAILURES, error_sentence, error_toast, hide_internal_errors
from ...ui.status import error_line, progress_line, status_line
from ...ui.stop import Final, Updates
from ...workspace.fill_form import TEXT_NUMBERS
from .tree import Tree, add_picture, make_node
from .view import describe_picture

EXAMPLE = "a cat to the left of a rocket on a white background"  # where no prompt was typed
CHANGES = ("prompt", "negative", "sampler", "cfg", "noise_seed")


@dataclass
class InsideHandlers:
    """The tab's event handlers with the components that they update.

    form    what a branch may change, and "at": its first step, from 1
    tree    the state that holds the visitor's Tree
    opened  the state that holds the key of the open recording
    """

    page: Page
    empty: gr.Column
    viewer: gr.HTML
    status: gr.HTML
    again: gr.Button
    exported: gr.File
    form: dict[str, Any]
    tree: gr.State = field(default_factory=lambda: gr.State({}))
    opened: gr.State = field(default_factory=gr.State)

    def __post_init__(self) -> None:
        self.recordings = self.page.runner.recordings
        self.field_names = [name for name in task_fields("generate") if name in self.page.form]

    @property
    def outputs(self) -> list[Any]:
        """All components that a handler may update."""
        shown = [self.empty, self.viewer, self.tree, self.opened, self.status, self.again]
        return [*shown, self.exported, *self.form.values()]

    def _show(
        self, recording: Recording, tree: Tree, language: str, message: str = ""
    ) -> dict[Any, Any]:
        """Return updates that show a recording of the tree."""
        form, options = self.form, recording.options
        return {
            self.empty: gr.update(visible=False),
            self.viewer: describe_picture(recording, tree, language),
            self.tree: tree,
            self.opened: recording.key,
            self.status: status_line("done", message or say("inside_ready", language)),
            self.again: gr.update(visible=False),
            self.exported: gr.update(visible=False),
            form["at"]: recording.steps,
            **{form[name]: getattr(options, name) for name in CHANGES if name != "noise_seed"},
            form["noise_seed"]: "",
        }

    def _error(self, sentence: str) -> dict[Any, Any]:
        return {self.status: error_line(sentence)}

    def _show_evicted(self, key: str, tree: Tree, language: str) -> dict[Any, Any]:
        """Return updates that say that a recording was evicted, and offer to draw it again."""
        node = tree.get(key)
        can = bool(node and node.lineage)
        sentence = say("inside_evicted" if can else "inside_evicted_task", language)
        return self._error(sentence) | {self.again: gr.update(visible=can), self.opened: key}

    # ---- open ---------------------------------------------------------------------------------

    def open_selected(
        self, keys: list[str | None], index: int, tree: Tree, request: gr.Request
    ) -> dict[Any, Any]:
        """Open the selected picture of the gallery."""
        language = request_language(request)
        key = keys[min(index, len(keys) - 1)] if keys else None
        there = {self.page.tabs: gr.Tabs(selected="inside")}
        if ON_ZERO_GPU:
            return there | self._error(say("inside_zero_gpu", language))
        if key is None:
            return there | self._error(
                say("inside_not_recorded" if keys else "inside_none", language)
            )
        found = self.recordings.get(key)
        if found is None:
            return there | self._show_evicted(key, tree, language)
        tree = tree if key in tree else add_picture({}, found)
        return there | self._show(found, tree, language)

    def open_newest(
        self,
        keys: list[str | None],
        index: int,
        tree: Tree,
        key: str | None,
        request: gr.Request,
    ) -> dict[Any, Any]:
        """Open the newest picture when the tab is selected, unless its tree is open already."""
        newest = keys[min(index, len(keys) - 1)] if keys else None
        if newest is None or newest in tree or (found := self.recordings.get(newest)) is None:
            return {self.opened: key}
        return self._show(found, add_picture({}, found), request_language(request))

    def open_node(self, event: gr.EventData, tree: Tree, request: gr.Request) -> dict[Any, Any]:
        """Open another picture of the tree."""
        key, language = str(event.key), request_language(request)
        if key not in tree:
            return {self.opened: None}
        found = self.recordings.get(key)
        if found is None:
            return self._show_evicted(key, tree, language)
        return self._show(found, tree, language)

    def show_evicted(self, event: gr.EventData, tree: Tree, request: gr.Request) -> dict[Any, Any]:
        """Show that a recording of which the browser wanted a frame was evicted."""
        return self._show_evicted(str(event.key), tree, request_language(request))

    def set_step(self, event: gr.EventData) -> int:
        """Set the first step of a branch to the one that the slider shows."""
        return event.step

    # ---- draw ---------------------------------------------------------------------------------

    def _draw(
        self,
        run: Run,
        events_of: Callable[[str], Iterator[Any]],
        language: str,
        show: Callable[[Recording], dict[Any, Any]],
    ) -> Updates:
        """Draw on the device: yield the updates of a run, then a Final of `show(recording)`.

        events_of(folder): a generator of Progress and Finished, see `report_events`.
        """
        yield {self.status: status_line("running", say("starting", language))}
        with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
            for event in self.page.runner.on_device(events_of)(folder):
                if isinstance(event, Finished):
                    recording = self.recordings.get(event.records[0]) if event.records else None
                    if recording is None:
                        raise InputError(say("inside_not_recorded", language))
                    yield Final(show(recording))
                else:
                    run.progress = event
                    yield {self.status: progress_line(event, language)}

    def draw_branch(
        self, run: Run, language: str, tree: Tree, key: str | None, at: Any, *values: Any
    ) -> Updates:
        """Draw a branch of the open picture. at: its first step, from 1; values: of CHANGES."""
        parent = self.recordings.get(key)
        if parent is None:
            none = self._error(say("inside_none", language))
            yield Final(self._show_evicted(key, tree, language) if key else none)
            return
        given = dict(zip(CHANGES, values, strict=True))
        given["noise_seed"] = (given["noise_seed"] or "").strip() or None
        step = at - 1 if isinstance(at, (int, float)) else at  # BranchRun refuses what is no number
        # The steps before another sampler took over are the parent's: branch off that one.
        while parent.parent and isinstance(step, (int, float)) and 0 <= step < parent.sampler_start:
            before = self.recordings.get(parent.parent)
            if before is None:
                break
            parent = before
        changes = {name: value for name, value in given.items() if value is not None}
        branched = parent

        def events(folder: str) -> Iterator[Any]:
            models = self.page.model_cache.get(branched.model[0], branched.model[2])
            branch = BranchRun(models, branched, step, changes)  # type: ignore[arg-type]  # checked
            yield from report_events(branch, folder, self.recordings)

        def show(recording: Recording) -> dict[Any, Any]:
            message = say("inside_made", language, step=int(step) + 1)
            return self._show(recording, add_picture(tree, recording), language, message)

        yield from self._draw(run, events, language, show)

    def redraw(self, run: Run, language: str, tree: Tree, key: str) -> Updates:
        """Draw a picture again whose recording was evicted, from its lineage."""
        node = tree.get(key)
        if node is None or not node.lineage:
            yield Final(self._error(say("inside_none", language)))
            return

        def events(folder: str) -> Iterator[Any]:
            models = self.page.model_cache.get(node.model[0], node.model[2])
            replay = ReplayRun(models, node.lineage, node.key, node.parent)
            yield from report_events(replay, folder, self.recordings)

        def show(recording: Recording) -> dict[Any, Any]:
            return self._show(recording, tree, language)

        yield from self._draw(run, events, language, show)

    def draw_example(self, run: Run, language: str, *values: Any) -> Updates:
        """Draw a picture with the settings of the tab Generate. values: of `field_names`."""
        fields = dict(zip(self.field_names, values, strict=True)) | {"count": 1}
        for name in TEXT_NUMBERS:
            fields[name] = (fields[name] or "").strip() or None
        names = [fields.pop(name, None) for name in MODEL_FIELDS]
        fields["prompt"] = fields["prompt"] or EXAMPLE

        def events(folder: str) -> Iterator[Any]:
            models = self.page.model_cache.get(*names)
            options = tasks.options("generate", **fields)
            steps = cast("Generator[Any]", tasks.stream(models, "generate", options, words=True))
            yield from report_events(Recorder(models, steps), folder, self.recordings)

        def show(recording: Recording) -> dict[Any, Any]:
            return self._show(recording, add_picture({}, recording), language)

        yield from self._draw(run, events, language, show)

    # ---- export -------------------------------------------------------------------------------

    def export_tree(self, tree: Tree, request: gr.Request) -> Iterator[Any]:
        """Save all recordings of the tree to one file and offer it."""
        language = request_language(request)
        found = [self.recordings.get(key) for key in tree]
        recordings = [recording for recording in found if recording is not None]
        if not found or len(recordings) < len(found):
            raise error_toast(say("inside_evicted" if found else "inside_none", language), language)
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                path = recording_file.save(recordings, Path(folder) / "glassbox-tree.safetensors")
                yield gr.update(value=str(path), visible=True)
        except InputError as error:
            raise error_toast(str(error), language) from None

    def import_tree(self, path: str, request: gr.Request) -> dict[Any, Any]:
        """Open the recordings of an exported tree and show the last one."""
        language = request_language(request)
        try:
            with hide_internal_errors():
                recordings = recording_file.open_tree(path)
        except FAILURES as error:
            return self._error(error_sentence(error, language))
        self.recordings.put(recordings)
        tree = {recording.key: make_node(recording) for recording in recordings}
        message = say("inside_opened", language, count=len(recordings))
        return self._show(recordings[-1], tree, language, message)
