"""Sampler and noise schedule on the page: each with its line of what it is good for."""

from __future__ import annotations

import gradio as gr

from pipeline.samplers import SAMPLERS, SCHEDULES, unsupported

from ..ui.listeners import UNQUEUED
from ..ui.no_stub_files import NoStubFiles

PAIR = ("sampler", "schedule")


class Late(gr.Dropdown, metaclass=NoStubFiles):
    """A dropdown whose choices follow another one's.

    What was chosen from the old choices may arrive after the new ones: it is let through, for the
    Options, who have a sentence for what does not go together, not for Gradio's own check.
    """

    is_template = True  # drawn as its parent is

    def preprocess(self, payload):
        return payload


def dropdowns(i18n, sampler: str, schedule: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Both, with these chosen; the schedules follow the sampler."""
    first = gr.Dropdown(
        [(s.label, key) for key, s in SAMPLERS.items() if not unsupported(key)],
        value=sampler,
        label=i18n("sampler"),
        info=i18n(f"sampler.{sampler}"),
        elem_id="sampler",
        min_width=140,
    )
    second = Late(
        _schedules(sampler),
        value=schedule,
        label=i18n("schedule"),
        info=i18n(f"schedule.{schedule}"),
        elem_id="schedule",
        min_width=140,
    )

    def follow(chosen: str, current: str):
        return list(updates(i18n, chosen, current).values())

    first.input(follow, [first, second], [first, second], **UNQUEUED)
    second.input(lambda key: gr.update(info=i18n(f"schedule.{key}")), second, second, **UNQUEUED)
    return first, second


def updates(i18n, sampler: str, schedule: str) -> dict[str, dict]:
    """Updates of both dropdowns: the schedule stays if the sampler takes it, else its first one."""
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
