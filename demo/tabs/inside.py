"""Look inside a picture: its steps, its words, its branches."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gradio as gr

from pipeline import recording_file, tasks
from pipeline.errors import InputError
from pipeline.recording import Branch, Recording, Remake, Watch
from pipeline.samplers import SAMPLERS, unsupported

from .. import inside, stage
from ..api import GPU
from ..inside import Eye
from ..reading import TYPED
from ..texts import language, say
from ..work import LENT, MODEL, Broken, Finished, broken, fields_of, told

PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
QUIET = {"queue": False} | PRIVATE
SCRIPT = Path(inside.__file__).with_name("inside.js").read_text(encoding="utf-8")
EXAMPLE = "a cat to the left of a rocket on a white background"  # where no prompt was typed
CHANGES = ("prompt", "negative", "sampler", "cfg", "noise_seed")


def tab(page) -> None:
    """Build the tab inside the page and wire it."""
    i18n, kept = page.i18n, page.paint.recordings
    eye = Eye(page.shelf, kept)

    def frame(asked):
        return eye.frame(asked)

    def maps(asked):
        return eye.maps(asked)

    tree, opened = gr.State({}), gr.State(None)  # inside.Tree; the key of the one that is looked at
    with gr.Column(elem_id="gb-inside", min_width=0):
        with gr.Column(elem_id="inside-see", elem_classes="gb-card", min_width=0):
            with gr.Column(elem_id="inside-empty", min_width=0) as empty:
                gr.HTML(stage.idle(i18n("inside_idle")), apply_default_css=False)
                example = gr.Button(
                    i18n("inside_example"), variant="primary", elem_id="inside-example"
                )
                gr.HTML(
                    f'<p class="gb-note gb-not">{i18n("inside_example_hint")}</p>',
                    apply_default_css=False,
                )
            viewer = gr.HTML(
                "",
                html_template='<div class="gbi"></div>',
                js_on_load=SCRIPT,
                apply_default_css=False,
                elem_id="inside-viewer",
                server_functions=[frame, maps],
            )
        with gr.Column(elem_id="inside-do", min_width=0):
            with gr.Column(elem_classes="gb-card", min_width=0):
                status = gr.HTML(
                    stage.line("ready", i18n("inside_ready")),
                    apply_default_css=False,
                    elem_id="inside-status",
                )
                again = gr.Button(i18n("inside_again"), visible=False, elem_id="inside-again")
            with gr.Column(elem_id="inside-branch", elem_classes="gb-card", min_width=0):
                for tag, name in (("h2", "inside_branch"), ("p", "inside_branch_hint")):
                    kind = "gb-title" if tag == "h2" else "gb-note gb-not"
                    gr.HTML(f'<{tag} class="{kind}">{i18n(name)}</{tag}>', apply_default_css=False)
                form = _form(i18n)
                with gr.Row(elem_id="inside-buttons"):
                    go = gr.Button(
                        i18n("inside_go"), variant="primary", scale=4, elem_id="inside-go"
                    )
                    stop = gr.Button(
                        i18n("stop"), variant="stop", min_width=90, elem_id="inside-stop"
                    )
            with gr.Column(elem_id="inside-files", elem_classes="gb-card", min_width=0):
                with gr.Row():
                    export = gr.Button(
                        i18n("inside_export"), size="sm", elem_id="inside-export", min_width=120
                    )
                    load = gr.UploadButton(
                        i18n("inside_import"),
                        size="sm",
                        file_types=[".safetensors"],
                        elem_id="inside-import",
                        min_width=120,
                    )
                exported = gr.File(
                    label=i18n("inside_file"),
                    visible=False,
                    interactive=False,
                    elem_id="inside-file",
                )

    looks = {empty, viewer, tree, opened, status, again, exported, *form.values()}

    def show(recording: Recording, grove: inside.Tree, tongue: str, said: str = "") -> dict:
        options = recording.options
        return {
            empty: gr.update(visible=False),
            viewer: inside.description(recording, grove, tongue),
            tree: grove,
            opened: recording.key,
            status: stage.line("done", said or say("inside_ready", tongue)),
            again: gr.update(visible=False),
            exported: gr.update(visible=False),
            form["at"]: recording.steps,
            **{form[name]: getattr(options, name) for name in CHANGES if name != "noise_seed"},
            form["noise_seed"]: "",
        }

    def gone(key: str, grove: inside.Tree, tongue: str) -> dict:
        """Nothing is lost but what can be made again."""
        node = grove.get(key)
        can = bool(node and node.lineage)
        sentence = say("inside_gone" if can else "inside_gone_task", tongue)
        return {
            status: stage.error(sentence),
            again: gr.update(visible=can),
            opened: key,
        }

    def choose(keys, index: int, grove: inside.Tree, request: gr.Request):
        """The gallery's picture that is looked at."""
        tongue = language(request)
        key = keys[min(index, len(keys) - 1)] if keys else None
        there = {page.tabs: gr.Tabs(selected="inside")}
        if LENT:
            return there | {status: stage.error(say("inside_lent", tongue))}
        if key is None:
            why = "inside_unkept" if keys else "inside_none"
            return there | {status: stage.error(say(why, tongue))}
        found = kept.get(key)
        if found is None:
            return there | gone(key, grove, tongue)
        grove = grove if key in grove else inside.grown({}, found)
        return there | show(found, grove, tongue)

    def visit(keys, index: int, grove: inside.Tree, key, request: gr.Request):
        """The tab is opened by hand: the newest picture, unless one is open already."""
        newest = keys[min(index, len(keys) - 1)] if keys else None
        if newest is None or newest in grove or (found := kept.get(newest)) is None:
            return {opened: key}
        return show(found, inside.grown({}, found), language(request))

    def pick(event: gr.EventData, grove: inside.Tree, request: gr.Request):
        key, tongue = str(event.key), language(request)
        if key not in grove:
            return {opened: None}
        found = kept.get(key)
        return gone(key, grove, tongue) if found is None else show(found, grove, tongue)

    def lost(event: gr.EventData, grove: inside.Tree, request: gr.Request):
        return gone(str(event.key), grove, language(request))

    def draw(events_of, tongue: str, finish):
        """Streams what is drawn, then `finish(recording)`."""
        yield {status: stage.line("running", say("starting", tongue))}
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                for event in page.paint.on_device(events_of)(folder):
                    if isinstance(event, Finished):
                        recording = kept.get(event.records[0]) if event.records else None
                        if recording is None:
                            raise InputError(say("inside_unkept", tongue))
                        yield finish(recording)
                    else:
                        yield {status: stage.running(event, tongue)}
        except (InputError, Broken) as error:
            sentence = str(error) if isinstance(error, InputError) else say("broken", tongue)
            yield {status: stage.error(sentence)}
            raise gr.Error(sentence, title=say("error", tongue), print_exception=False) from None

    def branch(request: gr.Request, grove: inside.Tree, key, at, *values):
        tongue = language(request)
        parent = kept.get(key)
        if parent is None:
            yield (
                gone(key, grove, tongue)
                if key
                else {status: stage.error(say("inside_none", tongue))}
            )
            return
        given = dict(zip(CHANGES, values, strict=True))
        given["noise_seed"] = (given["noise_seed"] or "").strip() or None
        step = at - 1 if isinstance(at, (int, float)) else at
        # Before another sampler took over, the way is the parent's: it is gone on from that.
        while parent.parent and isinstance(step, (int, float)) and 0 <= step < parent.first:
            before = kept.get(parent.parent)
            if before is None:
                break
            parent = before
        changes = {n: v for n, v in given.items() if v is not None}

        def events(folder: str):
            models = page.shelf.get(parent.model[0], parent.model[2])
            yield from told(Branch(models, parent, step, changes), folder, kept)

        def finish(made: Recording):
            said = say("inside_made", tongue, step=int(step) + 1)
            return show(made, inside.grown(grove, made), tongue, said)

        yield from draw(events, tongue, finish)

    def make_again(grove: inside.Tree, key, request: gr.Request):
        tongue, node = language(request), grove.get(key)
        if node is None or not node.lineage:
            yield {status: stage.error(say("inside_none", tongue))}
            return

        def events(folder: str):
            models = page.shelf.get(node.model[0], node.model[2])
            yield from told(Remake(models, node.lineage, node.key, node.parent), folder, kept)

        yield from draw(events, tongue, lambda made: show(made, grove, tongue))

    asked = [name for name in fields_of("generate") if name in page.form]

    def first(request: gr.Request, *values):
        """A picture of the tab Generate's settings."""
        tongue = language(request)
        fields = dict(zip(asked, values, strict=True)) | {"count": 1}
        for name in TYPED:
            fields[name] = (fields[name] or "").strip() or None
        names = [fields.pop(name, None) for name in MODEL]
        fields["prompt"] = fields["prompt"] or EXAMPLE

        def events(folder: str):
            models = page.shelf.get(*names)
            options = tasks.options("generate", **fields)
            drawn = tasks.stream(models, "generate", options, words=True)
            yield from told(Watch(models, drawn), folder, kept)

        yield from draw(events, tongue, lambda made: show(made, inside.grown({}, made), tongue))

    def moved(event: gr.EventData):
        return event.step

    def halt(request: gr.Request):
        return stage.line("stopped", say("stopped_early", language(request)))

    def save(grove: inside.Tree, request: gr.Request):
        tongue = language(request)
        found = [kept.get(key) for key in grove]
        if not found or None in found:
            why = "inside_gone" if found else "inside_none"
            raise gr.Error(say(why, tongue), title=say("error", tongue), print_exception=False)
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                path = recording_file.save(found, Path(folder) / "glassbox-tree.safetensors")
                yield gr.update(value=str(path), visible=True)
        except InputError as error:
            raise gr.Error(str(error), title=say("error", tongue), print_exception=False) from None

    def bring(path: str, request: gr.Request):
        tongue = language(request)
        try:
            with broken():
                found = recording_file.open_tree(path)
        except (InputError, Broken) as error:
            sentence = str(error) if isinstance(error, InputError) else say("broken", tongue)
            return {status: stage.error(sentence)}
        kept.put(found)
        grove = {r.key: inside.node(r) for r in found}
        said = say("inside_opened", tongue, count=len(found))
        return show(found[-1], grove, tongue, said)

    seen = page.seen
    page.look.click(choose, [seen.records, seen.chosen, tree], [page.tabs, *looks], **QUIET)
    page.panels["inside"].select(
        visit, [seen.records, seen.chosen, tree, opened], [*looks], **QUIET
    )
    viewer.select(pick, tree, [*looks], **QUIET)
    viewer.gone(lost, tree, [*looks], **QUIET)
    viewer.moved(moved, None, form["at"], **QUIET)
    changes = [form[name] for name in CHANGES]
    runs = [
        go.click(branch, [tree, opened, form["at"], *changes], [*looks], **PRIVATE, **GPU),
        again.click(make_again, [tree, opened], [*looks], **PRIVATE, **GPU),
        example.click(first, [page.form[n] for n in asked], [*looks], **PRIVATE, **GPU),
    ]
    stop.click(halt, None, status, cancels=runs, **QUIET)
    export.click(save, tree, exported, **PRIVATE)
    load.upload(bring, load, [*looks], **QUIET)


def _form(i18n) -> dict:
    """What a branch may change; limits are GenerateOptions'."""
    form = {
        "at": gr.Number(label=i18n("inside_at"), precision=0, elem_id="inside-at", min_width=90),
        "prompt": gr.Textbox(
            label=i18n("inside_prompt"), lines=1, max_lines=4, elem_id="inside-prompt"
        ),
        "negative": gr.Textbox(
            label=i18n("inside_negative"), lines=1, max_lines=3, elem_id="inside-negative"
        ),
    }
    with gr.Row():
        form["sampler"] = gr.Dropdown(
            [(s.label, key) for key, s in SAMPLERS.items() if not unsupported(key)],
            value=None,
            label=i18n("inside_sampler"),
            elem_id="inside-sampler",
            min_width=140,
        )
        form["cfg"] = gr.Number(
            label=i18n("inside_cfg"), step=0.5, elem_id="inside-cfg", min_width=90
        )
    form["noise_seed"] = gr.Textbox(
        label=i18n("inside_noise_seed"),
        info=i18n("inside_noise_seed_hint"),
        max_lines=1,
        elem_id="inside-noise-seed",
    )
    return form
