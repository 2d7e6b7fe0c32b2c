"""Run races on the server's device: from the fields of a request to a stream of RaceViews."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, cast

from pipeline.introspection import arena
from pipeline.lru import LruCache
from pipeline.model import Models
from pipeline.model_cache import ModelCache
from pipeline.options import GenerateOptions

from ...server.runner import MODEL_FIELDS, Runner
from ...server.temp_folder import request_folder
from .race_events import Entries, RaceEvent, to_race_events
from .race_view import RaceView

MAX_REFERENCES = 32  # reference solutions that are cached, so that the next race need not draw them
Names = tuple[Any, ...]  # the arguments of ModelCache.get: model, autoencoder, folder of LoRAs


class Races:
    """Runs races on the server's device: samplers, or backends, draw the same picture side by side.

    references: a cache of the almost exact solutions with which samplers are compared, so that a
    later race need not draw them; the keys, from `arena.reference_key`, hold all that such a
    reference depends on, such as model, prompt, seed and size.
    """

    def __init__(self, model_cache: ModelCache, runner: Runner):
        self.model_cache, self.runner = model_cache, runner
        self.references: LruCache[tuple, arena.Reference] = LruCache(MAX_REFERENCES)
        self._race = runner.on_device(self._race_events)

    def _race_events(
        self,
        task: str,
        options: GenerateOptions,
        names: Names,
        folder: str,
        entries: Entries,
        reference: arena.Reference | None,
    ) -> Iterator[RaceEvent]:
        """Run a race, in which samplers or backends draw the same picture; yield its RaceEvents.

        The PNG files are saved to `folder`. entries: the samplers, or the pairs of an attention and
        a GroupNorm backend. names: the arguments of ModelCache.get.
        reference: the almost exact solution with which samplers are compared, from an earlier race
        with the same options; None has it drawn after the samplers. task: always "arena".
        server/zerogpu.py estimates the GPU seconds from the arguments other than `reference`.
        """
        models = self.model_cache.get(*names)
        events: Iterator[Any]
        if isinstance(entries[0], arena.BackendPair):
            pairs = cast("list[arena.BackendPair]", entries)
            events = arena.race_backends(models, options, pairs)
        else:
            samplers = cast("list[arena.Entry]", entries)
            events = arena.race(models, options, samplers, reference)
        yield from to_race_events(cast("Generator[Any, None, None]", events), folder, entries)

    def resolve(
        self, fields: dict[str, Any], visitor: str
    ) -> tuple[Names, Models, GenerateOptions]:
        """Load the model of a race and replace each missing option by the model's default.

        In a race, samplers or backends draw the same picture. fields: its options in
        GenerateOptions by name, and "model" and "vae", names of the model cache; None or "" takes
        the default. visitor: the id of the visitor, whose own LoRAs the prompt may name. Returns
        (the arguments of ModelCache.get, the loaded model, the complete options). Raises InputError
        for a wrong value and for a model that cannot be loaded.
        """
        options_given = {}
        for name, value in fields.items():
            value = value.strip() if isinstance(value, str) else value
            if name not in MODEL_FIELDS and value not in (None, ""):
                options_given[name] = value
        options = GenerateOptions(**options_given)
        names = self.runner.names(fields, visitor)
        models = self.model_cache.get(*names)
        return names, models, arena.resolve_single(models, options)

    def stream(
        self,
        names: Names,
        models: Models,
        options: GenerateOptions,
        entries: Entries,
        language: str,
    ) -> Generator[RaceView, None, None]:
        """Run a race, in which samplers or backends draw the same picture; yield its state.

        The state is a RaceView, which also renders it as HTML. The same object is yielded before
        the race, after each event and at the end, when its `finished` is true. names, models,
        options: from `resolve`. entries: what races: samplers, or pairs of an attention and a
        GroupNorm backend. Closing the generator stops the race and deletes the PNG files of its
        pictures.
        """
        width, height, steps = options.width, options.height, options.steps
        assert width and height and steps  # resolved
        view = RaceView(entries, steps, (width, height), language)
        key, reference = arena.reference_key(models, options), None
        if not view.of_backends:
            reference = self.references.get(key)
        if reference is not None:
            view.set_reference(reference)
        with request_folder() as folder:
            work = self._race("arena", options, names, folder, entries, reference)
            with closing(cast("Generator[RaceEvent, None, None]", work)) as events:
                yield view
                for event in events:
                    view.apply(event)
                    if isinstance(event.event, arena.Reference):
                        self.references.put(key, event.event)
                    yield view
            view.finished = True
            yield view
