"""A metaclass for our own Gradio components that keeps Gradio from writing .pyi stub files."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

from gradio.component_meta import ComponentMeta


class NoStubFiles(ComponentMeta):
    """Create the class without the .pyi file that Gradio writes beside each component's source."""

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> Any:
        return ABCMeta.__new__(cls, name, bases, attrs)
