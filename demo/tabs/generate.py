"""A prompt becomes a picture: nothing is asked for beside the shared settings."""

from __future__ import annotations

from ..ui.fields import Task

TASK = Task(lambda page, key: {})
