"""Download a model in diffusers' format from the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from ..errors import InputError, short
from ..model_files import diffusers_folder
from ..model_files.file_reader import FileReader
from .silence import silence_libraries

HUB_FILES = [  # patterns of the files to download beside the weights
    *("model_index.json", "generation.json", "vocabulary.json", "scheduler/*.json"),
    *("tokenizer/*.json", "tokenizer/*.txt", "unet/config.json", "vae/config.json"),
    *("text_encoder/config.json", "text_encoder_2/config.json"),
    *("tokenizer_2/*.json", "tokenizer_2/*.txt"),
]


def download(name: str) -> Path:
    """Download the Hub model `name` ("owner/name") and return its folder in the local cache.

    Fetched are configurations, tokenizers and one variant of the safetensors weights. Without a
    connection a copy in the cache is returned. Raises InputError where there is no such model, it
    is of another architecture, needs a login, or the download fails.
    """
    with silence_libraries():
        from huggingface_hub import HfApi, errors, snapshot_download

        endpoint = os.environ.get("HF_ENDPOINT")
        try:
            files = [s.rfilename for s in HfApi(endpoint=endpoint).model_info(name).siblings or ()]
            if "model_index.json" not in files:
                raise InputError(
                    f"{name} on the hub is no model in diffusers' format: it has no"
                    " model_index.json."
                )
            # The index first, so that another architecture is refused before gigabytes arrive.
            first = snapshot_download(name, allow_patterns=["model_index.json"], endpoint=endpoint)
            with FileReader() as reader:
                diffusers_folder.read_index(Path(first), reader)
            wanted = HUB_FILES + _hub_weights(files)
            return Path(snapshot_download(name, allow_patterns=wanted, endpoint=endpoint))
        except InputError:
            raise
        except errors.GatedRepoError:
            reason = f"{name} asks for its licence to be accepted on the hub, and for a login."
        except (errors.RepositoryNotFoundError, errors.HFValidationError):
            reason = f"There is no folder {name}, and no model of that name on the hub."
        except Exception as error:  # the network fails in many ways
            with contextlib.suppress(Exception):
                local = snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True)
                return Path(local)
            detail = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = (
                f"There is no folder {name}, and the hub's model of that name cannot be fetched:"
                f" {short(detail)}"
            )
    raise InputError(reason)


def _hub_weights(files: list[str]) -> list[str]:
    """Return which weights to download, as names or patterns for snapshot_download.

    files: names of all files of the Hub model. Of each network the full-precision weights are
    chosen, else fp16, else all safetensors.
    """
    wanted = []
    for part in (n for n, component in diffusers_folder.COMPONENTS.items() if component.weights):
        base = f"{part}/{diffusers_folder.COMPONENTS[part].weights}"
        plain = re.compile(rf"{base}(-\d+-of-\d+)?\.safetensors|{base}\.safetensors\.index\.json")
        half = re.compile(
            rf"{base}\.fp16(-\d+-of-\d+)?\.safetensors|{base}\.safetensors\.index\.fp16\.json"
        )
        for pattern in (plain, half):
            chosen = [f for f in files if pattern.fullmatch(f)]
            if chosen:
                break
        wanted += chosen or [f"{part}/*.safetensors", f"{part}/*.index.*json"]
    return wanted
