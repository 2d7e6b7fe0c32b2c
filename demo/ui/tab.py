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
    """A tab that fills its own panel.

    title  the tab's name, in English and Chinese
    build  build(page) adds the panel's components and connects their listeners
    texts  a dict from text key to (English, Chinese), texts that only this tab uses
    """

    title: Text
    build: Callable[[Page], None]
    texts: dict[str, Text] = field(default_factory=dict)


def no_inputs(page: Page, key: str) -> dict[str, Any]:
    """Return no components: the default of TaskTab.inputs, for a task without inputs of its own."""
    return {}


def first_picture(values: dict[str, Any]) -> str | None:
    """Return the value of the input "picture", a path: the default of TaskTab.before."""
    return values.get("picture")


@dataclass(frozen=True, kw_only=True)
class TaskTab:
    """A tab that runs the task of the same key in `pipeline.tasks`, with the shared settings.

    title     the tab's name, in English and Chinese
    button    the name of the button that draws, in English and Chinese
    inputs    inputs(page, key) builds the task's own components, beside the shared settings, and
              returns {name: component}
    fields    fields(values) turns {name: value} of these components into fields of the task's
              Options; the default takes each name as a field
    without   names of shared settings that are neither shown nor sent
    own_size  whether the page offers to take width and height from the input picture
    first     whether the first of several pictures is shown large
    before    before(values) returns the path of the picture to compare the result with, or None
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
