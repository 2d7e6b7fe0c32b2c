"""Components of our own without files that Gradio would write beside them."""

from __future__ import annotations

from abc import ABCMeta

from gradio.component_meta import ComponentMeta


class Quiet(ComponentMeta):
    """Gradio's own writes a .pyi file beside the source of every class."""

    def __new__(cls, name, bases, attrs):
        return ABCMeta.__new__(cls, name, bases, attrs)
