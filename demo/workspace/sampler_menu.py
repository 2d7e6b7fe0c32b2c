"""The menus of samplers and noise schedules, each with a note on what it is good for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pipeline.samplers import SAMPLERS, SCHEDULES, unsupported

from ..ui.listeners import UNQUEUED
from ..ui.no_stub_files import NoStubFiles

PAIR = ("sampler", "schedule")


class UncheckedDropdown(gr.Dropdown, metaclass=NoStubFiles):
    """A dropdown whose value Gradio does not check against its choices.

    Its choices depend on another menu: a value of the old choices may arrive after the new ones
    were set. The task's Options refuse it in a sentence; Gradio would log a traceback.
    """

    is_template = True  # the browser has gr.Dropdown for it

    def preprocess(self, payload: Any) -> Any:
        """Return the value as it was sent."""
        return payload


def build_dropdowns(i18n: gr.I18n, sampler: str, schedule: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Build both menus with these values; the schedules are those that the sampler takes."""
    first = gr.Dropdown(
        [(s.label, key) for key, s in SAMPLERS.items() if not unsupported(key)],
        value=sampler,
        label=i18n("sampler"),
        info=i18n(f"sampler.{sampler}"),
        elem_id="sampler",
        min_width=140,
    )
    second = UncheckedDropdown(
        _schedules(sampler),
        value=schedule,
        label=i18n("schedule"),
        info=i18n(f"schedule.{schedule}"),
        elem_id="schedule",
        min_width=140,
    )

    def update(chosen: str, current: str) -> list[dict[str, Any]]:
        return list(pair_updates(i18n, chosen, current).values())

    first.input(update, [first, second], [first, second], **UNQUEUED)
    second.input(lambda key: gr.update(info=i18n(f"schedule.{key}")), second, second, **UNQUEUED)
    return first, second


def pair_updates(i18n: gr.I18n, sampler: str, schedule: str) -> dict[str, dict[str, Any]]:
    """Return updates of both menus; a schedule that the sampler does not take becomes its first."""
    choices = _schedules(sampler)
    keys = [key for _, key in choices]
    keep = schedule if schedule in keys else keys[0]
    return {
        "sampler": gr.update(value=sampler, info=i18n(f"sampler.{sampler}")),
        "schedule": gr.update(choices=choices, value=keep, info=i18n(f"schedule.{keep}")),
    }


def _schedules(sampler: str) -> list[tuple[str, str]]:
    keys = [key for key in SAMPLERS[sampler].schedules if not unsupported(key)]
    return [(SCHEDULES[key].label, key) for key in keys]
