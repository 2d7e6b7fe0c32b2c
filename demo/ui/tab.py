"""The two kinds of tabs: Tab, which fills its own panel, and TaskTab, which runs a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..page import Page

Text = tuple[str, str]  # (English, Chinese)


@dataclass(frozen=True, kw_only=True)
class Tab:
    """A tab of the page that builds all of its components itself, such as Arena.

    title  the tab's name, in English and Chinese
    build  build(page) adds the components and attaches their listeners
    texts  a dict from text key to (English, Chinese), texts that only this tab uses
    """

    title: Text
    build: Callable[[Page], None]
    texts: dict[str, Text] = field(default_factory=dict)


def no_inputs(page: Page, key: str) -> dict[str, Any]:
    """Return {}: the default of TaskTab.inputs, for a task with the shared settings alone.

    Shared settings are those that all task tabs show, such as prompt and steps.
    """
    return {}


def first_picture(values: dict[str, Any]) -> str | None:
    """Return the path of a task's input picture, which the before/after slider shows as "before".

    It is values["picture"], None if there is none. values: the values of the inputs that only this
    task has, by name. A TaskTab uses this function unless its field `before` is set to another.
    """
    return values.get("picture")


@dataclass(frozen=True, kw_only=True)
class TaskTab:
    """A tab of the page that runs one task of `pipeline.tasks`, the one with the same key.

    It shows the settings that all task tabs share (prompt, steps, ...) and the task's own inputs.

    title     the tab's name, in English and Chinese
    button    the name of the button that draws, in English and Chinese
    inputs    inputs(page, key) builds the components of the task's own inputs and returns {name:
              component}
    fields    fields(values) turns {name: value} of these components into fields of the task's
              Options; the default takes each name as a field
    without   names of shared settings that are neither shown nor sent
    own_size  whether the page offers to take width and height from the input picture
    first     whether the first of several pictures is shown large
    before    before(values) returns the path of the picture that the before/after slider compares
              with the result, or None
    texts     a dict from text key to (English, Chinese), texts that only this tab uses
    """

    title: Text
    button: Text
    inputs: Callable[[Page, str], dict[str, Any]] = no_inputs
    fields: Callable[[dict[str, Any]], dict[str, Any]] = dict
    without: tuple[str, ...] = ()
    own_size: bool = False
    first: bool = False
    before: Callable[[dict[str, Any]], str | None] = first_picture
    texts: dict[str, Text] = field(default_factory=dict)
