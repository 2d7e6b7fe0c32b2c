"""What the tab Look inside answers: a picture is opened, gone on from, made again, carried away."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline import tasks
from pipeline.errors import InputError
from pipeline.introspection import recording_file
from pipeline.introspection.branch import BranchRun, ReplayRun
from pipeline.introspection.recording import Recorder, Recording

from ...events import Finished
from ...server.runner import MODEL_FIELDS, report_events, task_fields
from ...server.zerogpu import ON_ZERO_GPU
from ...texts import request_language, say
from ...ui.failures import FAILURES, error_sentence, error_toast, hide_internal_errors
from ...ui.status import error_line, progress_line, status_line
from ...workspace.fill_form import TYPED
from . import view as inside

EXAMPLE = "a cat to the left of a rocket on a white background"  # where no prompt was typed
CHANGES = ("prompt", "negative", "sampler", "cfg", "noise_seed")


@dataclass
class Looking:
    """Listeners of the tab, each named after what the visitor did.

    form      what a branch may change, and "at": the step from which on
    tree      the visitor's inside.Tree
    opened    the key of the recording that is looked at
    """

    page: Any
    empty: gr.Column
    viewer: gr.HTML
    status: gr.HTML
    again: gr.Button
    exported: gr.File
    form: dict[str, Any]
    tree: gr.State = field(default_factory=lambda: gr.State({}))
    opened: gr.State = field(default_factory=gr.State)

    def __post_init__(self):
        self.kept = self.page.runner.recordings
        self.asked = [name for name in task_fields("generate") if name in self.page.form]

    @property
    def outputs(self) -> list:
        """What a listener may change."""
        seen = [self.empty, self.viewer, self.tree, self.opened, self.status, self.again]
        return [*seen, self.exported, *self.form.values()]

    def _show(
        self, recording: Recording, grove: inside.Tree, language: str, said: str = ""
    ) -> dict:
        form, options = self.form, recording.options
        return {
            self.empty: gr.update(visible=False),
            self.viewer: inside.description(recording, grove, language),
            self.tree: grove,
            self.opened: recording.key,
            self.status: status_line("done", said or say("inside_ready", language)),
            self.again: gr.update(visible=False),
            self.exported: gr.update(visible=False),
            form["at"]: recording.steps,
            **{form[name]: getattr(options, name) for name in CHANGES if name != "noise_seed"},
            form["noise_seed"]: "",
        }

    def _wrong(self, sentence: str) -> dict:
        return {self.status: error_line(sentence)}

    def _gone(self, key: str, grove: inside.Tree, language: str) -> dict:
        """Nothing is lost but what can be made again."""
        node = grove.get(key)
        can = bool(node and node.lineage)
        sentence = say("inside_gone" if can else "inside_gone_task", language)
        return self._wrong(sentence) | {self.again: gr.update(visible=can), self.opened: key}

    # ---- opened -------------------------------------------------------------------------------

    def choose(self, keys, index: int, grove: inside.Tree, request: gr.Request):
        """The gallery's picture that is looked at."""
        language = request_language(request)
        key = keys[min(index, len(keys) - 1)] if keys else None
        there = {self.page.tabs: gr.Tabs(selected="inside")}
        if ON_ZERO_GPU:
            return there | self._wrong(say("inside_lent", language))
        if key is None:
            return there | self._wrong(say("inside_unkept" if keys else "inside_none", language))
        found = self.kept.get(key)
        if found is None:
            return there | self._gone(key, grove, language)
        grove = grove if key in grove else inside.grown({}, found)
        return there | self._show(found, grove, language)

    def visit(self, keys, index: int, grove: inside.Tree, key, request: gr.Request):
        """The tab is opened by hand: the newest picture, unless one is open already."""
        newest = keys[min(index, len(keys) - 1)] if keys else None
        if newest is None or newest in grove or (found := self.kept.get(newest)) is None:
            return {self.opened: key}
        return self._show(found, inside.grown({}, found), request_language(request))

    def pick(self, event: gr.EventData, grove: inside.Tree, request: gr.Request):
        """Another picture of the tree."""
        key, language = str(event.key), request_language(request)
        if key not in grove:
            return {self.opened: None}
        found = self.kept.get(key)
        if found is None:
            return self._gone(key, grove, language)
        return self._show(found, grove, language)

    def lost(self, event: gr.EventData, grove: inside.Tree, request: gr.Request):
        """The browser asked for a frame of a recording that is no longer kept."""
        return self._gone(str(event.key), grove, request_language(request))

    def moved(self, event: gr.EventData):
        """The slider: a branch goes on from the step that is seen."""
        return event.step

    # ---- drawn --------------------------------------------------------------------------------

    def _draw(self, events_of, language: str, finish):
        """Streams what is drawn, then `finish(recording)`."""
        yield {self.status: status_line("running", say("starting", language))}
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                for event in self.page.runner.on_device(events_of)(folder):
                    if isinstance(event, Finished):
                        recording = self.kept.get(event.records[0]) if event.records else None
                        if recording is None:
                            raise InputError(say("inside_unkept", language))
                        yield finish(recording)
                    else:
                        yield {self.status: progress_line(event, language)}
        except FAILURES as error:
            sentence = error_sentence(error, language)
            yield self._wrong(sentence)
            raise error_toast(sentence, language) from None

    def branch(self, request: gr.Request, grove: inside.Tree, key, at, *values):
        """Gone on from a step, with something changed."""
        language = request_language(request)
        parent = self.kept.get(key)
        if parent is None:
            none = self._wrong(say("inside_none", language))
            yield self._gone(key, grove, language) if key else none
            return
        given = dict(zip(CHANGES, values, strict=True))
        given["noise_seed"] = (given["noise_seed"] or "").strip() or None
        step = at - 1 if isinstance(at, (int, float)) else at
        # Before another sampler took over, the way is the parent's: it is gone on from that.
        while parent.parent and isinstance(step, (int, float)) and 0 <= step < parent.sampler_start:
            before = self.kept.get(parent.parent)
            if before is None:
                break
            parent = before
        changes = {n: v for n, v in given.items() if v is not None}

        def events(folder: str):
            models = self.page.model_cache.get(parent.model[0], parent.model[2])
            yield from report_events(BranchRun(models, parent, step, changes), folder, self.kept)

        def finish(made: Recording):
            said = say("inside_made", language, step=int(step) + 1)
            return self._show(made, inside.grown(grove, made), language, said)

        yield from self._draw(events, language, finish)

    def make_again(self, grove: inside.Tree, key, request: gr.Request):
        """What was dropped, from its options and those of its branches."""
        language, node = request_language(request), grove.get(key)
        if node is None or not node.lineage:
            yield self._wrong(say("inside_none", language))
            return

        def events(folder: str):
            models = self.page.model_cache.get(node.model[0], node.model[2])
            again = ReplayRun(models, node.lineage, node.key, node.parent)
            yield from report_events(again, folder, self.kept)

        yield from self._draw(events, language, lambda made: self._show(made, grove, language))

    def first(self, request: gr.Request, *values):
        """A picture of the tab Generate's settings, `asked` in their order."""
        language = request_language(request)
        fields = dict(zip(self.asked, values, strict=True)) | {"count": 1}
        for name in TYPED:
            fields[name] = (fields[name] or "").strip() or None
        names = [fields.pop(name, None) for name in MODEL_FIELDS]
        fields["prompt"] = fields["prompt"] or EXAMPLE

        def events(folder: str):
            models = self.page.model_cache.get(*names)
            options = tasks.options("generate", **fields)
            drawn = tasks.stream(models, "generate", options, words=True)
            yield from report_events(Recorder(models, drawn), folder, self.kept)

        def finish(made: Recording):
            return self._show(made, inside.grown({}, made), language)

        yield from self._draw(events, language, finish)

    # ---- carried ------------------------------------------------------------------------------

    def save(self, grove: inside.Tree, request: gr.Request):
        language = request_language(request)
        found = [self.kept.get(key) for key in grove]
        if not found or None in found:
            raise error_toast(say("inside_gone" if found else "inside_none", language), language)
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                path = recording_file.save(found, Path(folder) / "glassbox-tree.safetensors")
                yield gr.update(value=str(path), visible=True)
        except InputError as error:
            raise error_toast(str(error), language) from None

    def bring(self, path: str, request: gr.Request):
        language = request_language(request)
        try:
            with hide_internal_errors():
                found = recording_file.open_tree(path)
        except FAILURES as error:
            return self._wrong(error_sentence(error, language))
        self.kept.put(found)
        grove = {r.key: inside.node(r) for r in found}
        return self._show(
            found[-1], grove, language, say("inside_opened", language, count=len(found))
        )
