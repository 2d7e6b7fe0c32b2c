"""The event handlers of the tab Look inside: open, branch, draw again, export and import.

They return updates as Gradio expects them: a dict from component to its new value. A branch is a
picture drawn again from one of its steps on with other options. A recording (all model calls of one
picture) is evicted when the server needs its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import gradio as gr

from pipeline import tasks
from pipeline.errors import InputError
from pipeline.introspection import recording_file
from pipeline.introspection.branch import BranchRun, ReplayRun, resolve_changes
from pipeline.introspection.recording import Recorder, Recording
from pipeline.options import GenerateOptions
from pipeline.samplers import SAMPLERS

from ...events import Finished
from ...page import Page
from ...server.runner import MODEL_FIELDS, report_events, task_fields
from ...server.runs import Run
from ...server.temp_folder import request_folder
from ...server.zerogpu import ON_ZERO_GPU
from ...texts import request_language, say
from ...ui.failures import FAILURES, error_sentence, error_toast, hide_internal_errors
from ...ui.listeners import event_value
from ...ui.status import error_line, progress_line, status_line
from ...ui.stop import Final, Updates
from ...workspace.fill_form import TEXT_NUMBERS
from .tree import Tree, add_picture, make_node
from .view import describe_picture

# The prompt of the example where the form has none.
EXAMPLE = "a cat to the left of a rocket on a white background"
# What a branch may change: options of GenerateOptions, and the seed of the noise that samplers add.
CHANGES = ("prompt", "negative", "sampler", "cfg", "noise_seed")


@dataclass
class InsideHandlers:
    """The event handlers of the tab Look inside, with the components that they update.

    The tab shows a recording: all model calls of one picture. A branch is a picture drawn again
    from one of its steps on with other options; a picture and its branches are a tree.

    empty        what is shown while no picture is open
    viewer       the component of inside.js that shows the open picture
    status       the status line
    again        the button that draws a picture again whose recording was evicted from memory
    exported     the field that offers the exported file
    form         the inputs of a branch by name: CHANGES, and "at", its first step, from 1
    tree         the state that holds the visitor's Tree
    opened       the state that holds the key of the open recording
    recordings   the server's store of recordings
    field_names  the options of the task "generate" that the page's form has
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
        """All components that the event handlers may update: the outputs of Gradio listeners."""
        views = [self.empty, self.viewer, self.tree, self.opened, self.status, self.again]
        return [*views, self.exported, *self.form.values()]

    def _show(
        self, recording: Recording, tree: Tree, language: str, message: str = ""
    ) -> dict[Any, Any]:
        """Return updates that open a recorded picture in the viewer, with the tree of its branches.

        They also fill the inputs of a new branch with the picture's options. tree: contains the
        picture. message: the text of the status line; "" for the usual one.
        """
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
        """Return updates that say that a picture's recording is no longer in the server's memory.

        If the picture's node in `tree` holds the options to draw it again, a button that does so is
        shown. key: the recording's key.
        """
        node = tree.get(key)
        drawable = bool(node and node.lineage)
        sentence = say("inside_evicted" if drawable else "inside_evicted_task", language)
        return self._error(sentence) | {self.again: gr.update(visible=drawable), self.opened: key}

    # ---- open ---------------------------------------------------------------------------------

    def open_selected(
        self, keys: list[str | None], index: int, tree: Tree, request: gr.Request
    ) -> dict[Any, Any]:
        """Select the tab Look inside and open the gallery's selected picture, to replay its steps.

        keys: the key of each gallery picture's recording; None for a picture without one. index:
        the index of the selected picture. tree: the open picture and its branches. Returns the
        updates.
        """
        language = request_language(request)
        key = keys[min(index, len(keys) - 1)] if keys else None
        select_tab = {self.page.tabs: gr.Tabs(selected="inside")}
        if ON_ZERO_GPU:
            return select_tab | self._error(say("inside_zero_gpu", language))
        if key is None:
            return select_tab | self._error(
                say("inside_not_recorded" if keys else "inside_none", language)
            )
        recording = self.recordings.get(key)
        if recording is None:
            return select_tab | self._show_evicted(key, tree, language)
        tree = tree if key in tree else add_picture({}, recording)
        return select_tab | self._show(recording, tree, language)

    def open_newest(
        self,
        keys: list[str | None],
        index: int,
        tree: Tree,
        key: str | None,
        request: gr.Request,
    ) -> dict[Any, Any]:
        """Open the gallery's selected picture when the visitor goes to the tab Look inside.

        Returns the updates of the components. The picture that is open stays if the selected one is
        in its tree (a picture and its branches) or has no recording in memory. keys: for each
        picture of the gallery the key of its recording, or None. index: that of the selected
        picture in the gallery. tree: the open tree. key: the key of the open recording.
        """
        newest = keys[min(index, len(keys) - 1)] if keys else None
        if newest is None or newest in tree:
            return {self.opened: key}
        recording = self.recordings.get(newest)
        if recording is None:
            return {self.opened: key}
        return self._show(recording, add_picture({}, recording), request_language(request))

    def open_node(self, event: gr.EventData, tree: Tree, request: gr.Request) -> dict[Any, Any]:
        """Return updates that open the picture that the visitor clicked in the tree of branches.

        event: its `key` is the key of the picture's recording.
        """
        key, language = event_value(event, "key", str), request_language(request)
        if key not in tree:
            return {self.opened: None}
        recording = self.recordings.get(key)
        if recording is None:
            return self._show_evicted(key, tree, language)
        return self._show(recording, tree, language)

    def show_evicted(self, event: gr.EventData, tree: Tree, request: gr.Request) -> dict[Any, Any]:
        """Return updates that say that a picture's recording is no longer in the server's memory.

        event: its `key` is the recording's key; inside.js sends it after a request for it has
        failed.
        """
        return self._show_evicted(event_value(event, "key", str), tree, request_language(request))

    def set_step(self, event: gr.EventData) -> int:
        """Return the step, from 1, to which the visitor moved the viewer's slider, for the form.

        The form starts a branch, which draws the picture again from a step on with changed options.
        The number is filled in there as that step.
        """
        return event_value(event, "step", int)

    # ---- draw ---------------------------------------------------------------------------------

    def _draw(
        self,
        run: Run,
        events_of: Callable[[str], Iterator[Any]],
        language: str,
        show: Callable[[Recording], dict[Any, Any]],
        task: str,
        options: GenerateOptions,
        names: tuple[str | None, ...],
    ) -> Updates:
        """Draw one picture on the server's device and open its recording in the viewer.

        Yields updates of the status line, then a Final with the updates of `show(recording)`.
        events_of: events_of(folder) yields a Progress for each step, then a Finished, and saves the
        picture to `folder`. task, options, names: "generate", or "branch" where a picture is
        continued; what is drawn at most; (model, autoencoder) by their names in the model cache:
        the server's limit is checked with them. Raises InputError if the picture was not recorded,
        and Refused if it is too large.
        """

        def draw(
            task: str, options: GenerateOptions, names: tuple[str | None, ...], folder: str
        ) -> Iterator[Any]:
            yield from events_of(folder)

        yield {self.status: status_line("running", say("starting", language))}
        with request_folder() as folder:
            for event in self.page.runner.on_device(draw)(task, options, names, folder):
                if isinstance(event, Finished):
                    recording = self.recordings.get(event.records[0]) if event.records else None
                    if recording is None:
                        raise InputError(say("inside_not_recorded", language))
                    yield Final(show(recording))
                else:
                    run.progress = event
                    yield {self.status: progress_line(event, language)}

    def _names(self, model: str | None, vae: str | None, run: Run) -> tuple[Any, ...]:
        """Return the arguments of ModelCache.get for a run. model, vae: names in the cache."""
        return self.page.runner.names({"model": model, "vae": vae}, run.visitor)

    def draw_branch(
        self, run: Run, language: str, tree: Tree, key: str | None, at: Any, *values: Any
    ) -> Updates:
        """Draw the open picture again from one of its steps on, with other options; open it.

        Yields updates that show the progress. key: the key of the open recording. at: the first
        step that is drawn again, from 1. values: the new values of CHANGES, in that order; None
        keeps the old one. Raises InputError for wrong ones.
        """
        parent = self.recordings.get(key)
        if parent is None:
            none = self._error(say("inside_none", language))
            yield Final(self._show_evicted(key, tree, language) if key else none)
            return
        fields = dict(zip(CHANGES, values, strict=True))
        fields["noise_seed"] = (fields["noise_seed"] or "").strip() or None
        step = at - 1 if isinstance(at, (int, float)) else at  # BranchRun refuses what is no number
        # Steps before a change of the sampler belong to the parent: branch off the parent instead.
        while parent.parent and isinstance(step, (int, float)) and 0 <= step < parent.sampler_start:
            grandparent = self.recordings.get(parent.parent)
            if grandparent is None:
                break
            parent = grandparent
        changes = {name: value for name, value in fields.items() if value is not None}
        branched, names = parent, self._names(parent.model[0], parent.model[2], run)
        with hide_internal_errors():
            options, _ = resolve_changes(branched, changes)

        def events(folder: str) -> Iterator[Any]:
            models = self.page.model_cache.get(*names)
            branch = BranchRun(models, branched, step, changes)  # type: ignore[arg-type]  # checked
            yield from report_events(branch, folder, self.recordings)

        def show(recording: Recording) -> dict[Any, Any]:
            message = say("inside_made", language, step=int(step) + 1)
            return self._show(recording, add_picture(tree, recording), language, message)

        yield from self._draw(run, events, language, show, "branch", options, names)

    def redraw(self, run: Run, language: str, tree: Tree, key: str) -> Updates:
        """Draw a picture once more, because its recording (all model calls) is no longer in memory.

        Yields updates that show the progress, then the picture in the viewer. key: the key of the
        lost recording; its node in `tree` holds the options to draw it with.
        """
        node = tree.get(key)
        if node is None or not node.lineage:
            yield Final(self._error(say("inside_none", language)))
            return
        names = self._names(node.model[0], node.model[2], run)
        options = largest_options(node.lineage)

        def events(folder: str) -> Iterator[Any]:
            models = self.page.model_cache.get(*names)
            replay = ReplayRun(models, node.lineage, node.key, node.parent)
            yield from report_events(replay, folder, self.recordings)

        def show(recording: Recording) -> dict[Any, Any]:
            return self._show(recording, tree, language)

        yield from self._draw(run, events, language, show, "branch", options, names)

    def draw_example(self, run: Run, language: str, *values: Any) -> Updates:
        """Draw a picture with the settings of the tab Generate, and open it in the tab Look inside.

        Yields updates that show the progress. values: the values of the settings `field_names`, in
        that order. An empty prompt becomes EXAMPLE.
        """
        fields = dict(zip(self.field_names, values, strict=True)) | {"count": 1}
        for name in TEXT_NUMBERS:
            fields[name] = (fields[name] or "").strip() or None
        names = self.page.runner.names(fields, run.visitor)
        fields = {name: value for name, value in fields.items() if name not in MODEL_FIELDS}
        fields["prompt"] = fields["prompt"] or EXAMPLE
        options = tasks.options("generate", **fields)

        def events(folder: str) -> Iterator[Any]:
            models = self.page.model_cache.get(*names)
            steps = cast("Generator[Any]", tasks.stream(models, "generate", options, words=True))
            yield from report_events(Recorder(models, steps), folder, self.recordings)

        def show(recording: Recording) -> dict[Any, Any]:
            return self._show(recording, add_picture({}, recording), language)

        yield from self._draw(run, events, language, show, "generate", options, names)

    # ---- export -------------------------------------------------------------------------------

    def export_tree(self, tree: Tree, request: gr.Request) -> Iterator[Any]:
        """Save the recordings of a picture and all of its branches to one file, for import later.

        Yields the update that offers the file. Raises gr.Error, which the page shows as a toast, if
        the tree is empty, a recording is no longer in memory, or the file cannot be written.
        """
        language = request_language(request)
        recordings = [r for r in map(self.recordings.get, tree) if r is not None]
        if not tree or len(recordings) < len(tree):
            raise error_toast(say("inside_evicted" if tree else "inside_none", language), language)
        try:
            with request_folder() as folder:
                path = recording_file.save(recordings, Path(folder) / "glassbox-tree.safetensors")
                yield gr.update(value=str(path), visible=True)
        except InputError as error:
            raise error_toast(error_sentence(error, language), language) from None

    def import_tree(self, path: str, request: gr.Request) -> dict[Any, Any]:
        """Open an exported file with a picture and all its branches; show the last one in it.

        A branch continues the picture from one of its steps with changed options. path: the
        file's. Returns the updates of the page; if the file cannot be opened, they show the error
        in the status line.
        """
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


def largest_options(lineage: tuple[dict[str, Any], ...]) -> GenerateOptions:
    """Return options that draw at least as much as a ReplayRun of `lineage` does.

    A ReplayRun draws a picture, then each branch that led to another one; here all are drawn with
    the sampler that calls the model most often. lineage: see `ReplayRun`.
    """
    options = GenerateOptions(**lineage[0])
    named = [change.get("sampler") for change in lineage]
    samplers = [key for key in named if key in SAMPLERS]
    costly = max(samplers, key=lambda key: SAMPLERS[key].calls, default=options.sampler)
    return options.model_copy(update={"count": len(lineage), "sampler": costly})
