"""A metaclass for our Gradio components that keeps Gradio from writing .pyi stub files."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

from gradio.component_meta import ComponentMeta


class NoStubFiles(ComponentMeta):
    """Metaclass of a Gradio component that writes no .pyi file beside the component's source.

    Gradio's own ComponentMeta writes one whenever such a class is defined.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> Any:
        return ABCMeta.__new__(cls, name, bases, attrs)
