"""The tab Generate: text to image, with the shared settings alone."""

from __future__ import annotations

from ..ui.tab import TaskTab

TAB = TaskTab(title=("Generate", "生成"), button=("Generate", "生成"))
