"""Check the configurations of a model folder: each by itself, and whether they fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError, short
from .file_reader import FileReader
from .json_file import are_sizes

MAX_NUMBER = 1_000_000  # in a config.json: no size or count of a real model is larger
MAX_LAYERS = 128  # value of a field whose name has "layers", and length of a list
SCHEDULER = {  # from a field of scheduler_config.json to the values that the samplers understand
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
}


def check_numbers(value: Any, path: Path, key: str = "") -> None:
    """Raise InputError where a config.json holds a number or list too large for a real model.

    They could exhaust the memory when the network is built. Allowed are numbers up to 1,000,000,
    fields whose name has "layers" up to 128, and lists of up to 128 values. value: the parsed file;
    the function calls itself for each value in it. path: the file, named in the message. key: name
    of the field that holds `value`, "" for the whole file.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            check_numbers(inner, path, name)
    elif isinstance(value, list):
        if len(value) > MAX_LAYERS:
            raise InputError(f"{short(path)}: {short(key)} has {len(value):,} entries.")
        for inner in value:
            check_numbers(inner, path, key)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        limit = MAX_LAYERS if "layers" in key else MAX_NUMBER
        if not abs(value) <= limit:
            raise InputError(f"{short(path)}: {short(key)} is {short(value)}, more than {limit:,}.")


def check_scheduler(config: dict[str, Any], path: Path) -> None:
    """Raise InputError for a scheduler_config.json whose noise schedule the samplers lack.

    config: the parsed file; absent fields are accepted. path: of the file, for the message.
    """
    for key, allowed in SCHEDULER.items():
        if key in config and config[key] not in allowed:
            raise InputError(
                f"{short(path)}: {key} is {short(config[key])}; it can be {', '.join(allowed)}."
            )
    steps = config.get("num_train_timesteps", 1000)
    if not are_sizes([steps]) or not 2 <= steps <= 10_000:
        raise InputError(f"{short(path)}: num_train_timesteps is {short(steps)}.")
    for key in ("beta_start", "beta_end"):
        beta = config.get(key, 0.01)
        if not isinstance(beta, (int, float)) or not 0 < beta < 1:
            raise InputError(f"{short(path)}: {key} is {short(beta)}; it lies between 0 and 1.")
    betas = config.get("trained_betas")
    if betas is not None and not (
        isinstance(betas, list)
        and len(betas) == steps
        and all(isinstance(b, float) and 0 < b < 1 for b in betas)
    ):
        raise InputError(f"{short(path)}: trained_betas must be {steps} numbers from 0 to 1.")


def check_merges(place: Path, files: FileReader) -> None:
    """Raise InputError where merges.txt and vocab.json of a CLIP tokenizer contradict each other.

    The two halves of each merge and their concatenation must be tokens of the vocabulary. place:
    the tokenizer's folder. files: reads them.
    """
    vocabulary = files.json(place / "vocab.json")
    if not isinstance(vocabulary, dict) or not are_sizes(list(vocabulary.values())):
        raise InputError(f"{short(place / 'vocab.json')} must map words to numbers.")
    try:
        text = files.content(place / "merges.txt").decode("utf-8")
    except UnicodeError:
        raise InputError(f"{short(place / 'merges.txt')} is damaged: it is not text.") from None
    for line in text.split("\n"):
        pair = line.rstrip("\r").split(" ")
        if pair == [""] or line.startswith("#version"):
            continue
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            raise InputError(
                f"{short(place / 'merges.txt')} does not go with vocab.json: see {short(line)}."
            )


def check_fit(folder: Path, configs: dict[str, dict[str, Any]]) -> None:
    """Raise InputError where networks do not fit each other, or the UNet needs unknown inputs.

    The inputs that it can get are latents (with mask and masked latents for inpainting), timestep,
    context and, for SD XL, pooled text and sizes. folder: the model's, named in the message.
    configs: the parsed config.json of "unet", "vae", "text_encoder" and, for SD XL,
    "text_encoder_2".
    """
    xl = "text_encoder_2" in configs
    unet, vae, text = (configs[n] for n in ("unet", "vae", "text_encoder"))
    asks = {k: unet.get(k) for k in ("class_embed_type", "encoder_hid_dim_type")}
    # "text" pools the context that every UNet gets, so it needs no further input.
    wanted = ("text_time",) if xl else (None, "text")
    if unet.get("addition_embed_type") not in wanted:
        asks["addition_embed_type"] = unet.get("addition_embed_type")
    for key, value in asks.items():
        if value is not None or key == "addition_embed_type":
            kind = "Stable Diffusion XL has not" if xl else "Stable Diffusion 1.x and 2.x do not"
            raise InputError(
                f"The UNet of {short(folder)} is of another architecture: it has"
                f" {key} {short(value)}, which {kind}."
            )
    if unet.get("num_class_embeds") is not None:
        raise InputError(f"The UNet of {short(folder)} asks for classes; this version has none.")
    for name, config in (("unet", unet), ("vae", vae)):
        blocks, side = config.get("block_out_channels", [64]), config.get("sample_size") or 64
        if not are_sizes(blocks) or not 1 <= len(blocks) <= 8:
            raise InputError(f"{short(folder / name)}: block_out_channels is {short(blocks)}.")
        if not are_sizes(side if isinstance(side, list) else [side]):
            raise InputError(f"{short(folder / name)}: sample_size is {short(side)}.")
    scale = vae.get("scaling_factor", 0.18215)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or scale <= 0:
        raise InputError(f"{short(folder / 'vae')}: scaling_factor is {short(scale)}.")
    latents = vae.get("latent_channels", 4)
    masked = 2 * latents + 1 if isinstance(latents, int) else None  # of an inpainting UNet
    for key, fit in (("in_channels", (latents, masked)), ("out_channels", (latents,))):
        if unet.get(key, 4) not in fit:
            raise InputError(
                f"The UNet of {short(folder)} has {key} {short(unet.get(key, 4))} and its"
                f" autoencoder {short(latents)} latent channels; only a UNet for text to image or"
                " for inpainting can be loaded."
            )
    width, words = unet.get("cross_attention_dim", 1280), text.get("hidden_size", 512)
    if xl:
        second = configs["text_encoder_2"]
        if are_sizes([words, second.get("hidden_size", 512)]):
            words += second.get("hidden_size", 512)
        # the pooled text embedding, and six sizes, each embedded
        pooled, sizes = second.get("projection_dim", 512), unet.get("addition_time_embed_dim")
        room = unet.get("projection_class_embeddings_input_dim")
        if not are_sizes([pooled, sizes, room]) or room != pooled + 6 * int(sizes or 0):
            raise InputError(
                f"The UNet of {short(folder)} takes {short(room)} numbers beside time and words;"
                f" its second text encoder's {short(pooled)} and 6 sizes of {short(sizes)} do not"
                " fit."
            )
    if width != words:
        encoders = "encoders give" if xl else "encoder gives"
        raise InputError(
            f"The UNet of {short(folder)} takes a context of size {short(width)}, its text"
            f" {encoders} {short(words)}."
        )
