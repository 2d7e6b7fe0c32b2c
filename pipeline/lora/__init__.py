"""LoRA (Hu et al., arXiv 2106.09685): low-rank additions to a model's layers, for one request.

`read_lora` reads a file; the class `pipeline.lora.adapters.Adapters` matches it to a model's layers
and installs it. Importing this package does not import torch; reading a file does.
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
