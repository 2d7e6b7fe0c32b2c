"""LoRA (Hu et al., arXiv 2106.09685): low-rank additions to a model's layers, for one request.

`read_lora` reads a file; the model's `pipeline.lora.adapters.Adapters` fits and installs it. No
torch is imported before a file is read.
"""

from __future__ import annotations

import sys
from typing import Any

from ..model_files.lora_keys import is_lora, lora_family
from ..old_names import find_renamed
from .reading import LoraFile, LowRankDelta, read_lora

__all__ = ["LoraFile", "LowRankDelta", "is_lora", "lora_family", "read_lora"]


def __getattr__(name: str) -> Any:
    return find_renamed(sys.modules[__name__], name)
