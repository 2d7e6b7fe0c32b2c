"""Sampler and noise schedule on the page."""

from __future__ import annotations

import gradio as gr

from demo.workspace.sampler_menu import UncheckedDropdown, build_dropdowns, pair_updates


def plain(key):
    return key


def test_a_schedule_chosen_just_before_the_sampler_changed_is_no_error_of_the_server():
    """The browser may send the old choice after the server has offered the new ones."""
    with gr.Blocks():
        _, schedule = build_dropdowns(plain, "dpmpp_2m", "karras")
    new = pair_updates(plain, "lcm", "karras")["schedule"]
    assert "karras" not in [key for _, key in new["choices"]] and new["value"] == "automatic"
    schedule.choices = new["choices"]
    assert schedule.preprocess("karras") == "karras"
    assert isinstance(schedule, UncheckedDropdown) and schedule.get_block_name() == "dropdown"


def test_the_schedule_stays_where_the_sampler_takes_it():
    assert pair_updates(plain, "euler", "karras")["schedule"]["value"] == "karras"
