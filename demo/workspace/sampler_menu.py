"""The menus of samplers and noise schedules, each with a note on what it is good for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pipeline.samplers import SAMPLERS, SCHEDULES, unsupported

from ..ui.listeners import UNQUEUED
from ..ui.no_stub_files import NoStubFiles

PAIR = ("sampler", "schedule")  # the menus' keys in page.form


class UncheckedDropdown(gr.Dropdown, metaclass=NoStubFiles):
    """A gr.Dropdown whose value Gradio does not check against its choices; for noise schedules.

    Their choices depend on the sampler's menu, so a value of the old choices may arrive after new
    ones were set. The task's Options then raise InputError; Gradio would log a traceback.
    """

    is_template = True  # the browser shows it as a gr.Dropdown

    def preprocess(self, payload: Any) -> Any:
        """Return the chosen value as the browser sent it, not checked against the choices."""
        return payload


def build_dropdowns(i18n: gr.I18n, sampler: str, schedule: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Build the menus of samplers and noise schedules.

    sampler, schedule: keys of those that are chosen at first. The second menu offers only schedules
    that the chosen sampler supports.
    """
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
    """Return {"sampler": update, "schedule": update} that choose a sampler and a schedule.

    They are for the two menus. A schedule that the sampler does not support is replaced by the
    first that it supports.
    """
    choices = _schedules(sampler)
    keys = [key for _, key in choices]
    keep = schedule if schedule in keys else keys[0]
    return {
        "sampler": gr.update(value=sampler, info=i18n(f"sampler.{sampler}")),
        "schedule": gr.update(choices=choices, value=keep, info=i18n(f"schedule.{keep}")),
    }


def _schedules(sampler: str) -> list[tuple[str, str]]:
    """Return (label, key) of the schedules that a sampler supports on this server."""
    keys = [key for key in SAMPLERS[sampler].schedules if not unsupported(key)]
    return [(SCHEDULES[key].label, key) for key in keys]
