"""LoRA files: small additions to a model's layers, put on for a request and taken off after it.

`read` a file, and let `pipeline.lora.adapters.Adapters` of the model fit and install it. Nothing
here imports torch before a file is read (Hu et al., arXiv 2106.09685).
"""

from ..model_files.lora_keys import is_lora, lora_family
from .reading import LoraFile, LowRankDelta, read_lora

__all__ = ["LoraFile", "LowRankDelta", "is_lora", "lora_family", "read_lora"]
