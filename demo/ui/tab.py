"""The rows of the table of tabs: a tab that fills its own panel, and a tab that draws."""

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

    title  what stands on the tab
    build  build(page) adds components inside the panel and wires them
    texts  the tab's own texts by key
    """

    title: Text
    build: Callable[[Page], None]
    texts: dict[str, Text] = field(default_factory=dict)


def no_inputs(page: Page, key: str) -> dict[str, Any]:
    """Return no components: the shared settings are enough."""
    return {}


def first_picture(values: dict[str, Any]) -> str | None:
    """Return the path of the picture that the task began from, None without one."""
    return values.get("picture")


@dataclass(frozen=True, kw_only=True)
class TaskTab:
    """A tab that runs the task of the same key in `pipeline.tasks`, with the shared settings.

    title     what stands on the tab
    button    what stands on the button that draws
    inputs    inputs(page, key) builds the components beside the shared settings and returns them
              as {name: component}; a name is a field of the task's options unless `fields` maps it
    fields    fields(values) turns the inputs' values by name into fields of the task's options
    without   shared settings that are neither shown nor sent
    own_size  whether width and height may be taken from the picture
    first     whether the first of several pictures is shown large
    before    before(values) returns the path of the picture to compare the result with, or None
    texts     the tab's own texts by key
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
