"""Read the manifest of a model: everything that loading needs to know, except the weights.

A model is a folder in diffusers' format or a single .safetensors file in the original layout (that
of CompVis/latent-diffusion). `open` reads each small file once, and of the weights files the
headers and the hash; afterwards loaders read nothing but tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, short
from . import diffusers_folder, identify, ldm_configs, ldm_keys
from .diffusers_folder import ModelFolder, TokenizerFiles
from .file_reader import FileReader
from .tensor_plan import ComponentFiles

CLIP = Path(__file__).parents[1] / "clip"  # CLIP's tokenizer, which single files do not contain


@dataclass(frozen=True)
class ModelManifest:
    """What is known of a model's files before loading: all but the weights, read and checked.

    path                 the model's folder or file
    family, what         "sd1", "sd2" or "xl"; the same in words ("SD XL, single file")
    networks             by name: "unet", "vae" (some files have none), "text_encoder", for SD XL
                         also "text_encoder_2"
    scheduler            the parsed scheduler_config.json, for a single file an equivalent dict
    prediction           "epsilon", "v_prediction", or None where an SD 2.x does not say which
    tokenizers           by name: "tokenizer", for SD XL also "tokenizer_2"
    zero_empty_negative  whether an empty negative prompt is encoded as zeros
    digests              from network name to the SHA-256 (hex) of its files; {} if not computed
    extras               the parsed generation.json (default settings) and vocabulary.json (words
                         that a small model knows) by file name, if present
    warnings             sentences for the user
    """

    path: Path
    family: str
    what: str
    networks: dict[str, ComponentFiles]
    scheduler: dict[str, Any]
    prediction: str | None
    tokenizers: dict[str, TokenizerFiles]
    zero_empty_negative: bool
    digests: dict[str, str]
    extras: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """A1111's "Model hash": the first 10 hex digits of the SHA-256 of the UNet's files.

        Raises KeyError where the manifest was opened with hashed=False.
        """
        return self.digests["unet"][:10]


@dataclass(frozen=True)
class Autoencoder:
    """The opened files of a VAE that is given beside a model, and their SHA-256.

    digest: 64 hex digits; "" where it was not computed.
    """

    files: ComponentFiles
    digest: str


def open(path: Path, *, hashed: bool = True) -> ModelManifest:
    """Read and check a model folder or a .safetensors checkpoint and return its manifest.

    hashed: whether to compute the SHA-256 of the weights, which reads the whole files; False to
    list many models. Raises InputError where the model cannot be loaded, and says why.
    """
    with FileReader() as files:
        manifest = _open_folder(path, files) if path.is_dir() else _open_file(path, files)
        if hashed:  # last, so that a damaged model raises at once
            digests = {n: files.sha256(part.files) for n, part in manifest.networks.items()}
            manifest = replace(manifest, digests=digests)
        return manifest


def open_autoencoder(path: Path, family: str, *, hashed: bool = True) -> Autoencoder:
    """Read and check a VAE that is to replace a model's own; its weights are not loaded yet.

    path: a .safetensors file (a VAE, or a checkpoint that has one), a model folder, or the folder
    `vae` of one. family: "sd1", "sd2" or "xl", of the model that will use it. hashed: whether to
    compute the SHA-256. Raises InputError where there is no valid VAE.
    """
    with FileReader() as files:
        part = _open_autoencoder(path, family, files)
        return Autoencoder(part, files.sha256(part.files) if hashed else "")


def _open_folder(folder: Path, files: FileReader) -> ModelManifest:
    found = diffusers_folder.read_folder(folder, files)
    family = _folder_family(found)
    return ModelManifest(
        path=folder,
        family=family,
        what=f"{identify.FAMILIES[family]}, diffusers folder",
        networks={
            name: ComponentFiles(name, part.config, folder / name, part.weights)
            for name, part in found.networks.items()
        },
        scheduler=found.scheduler,
        prediction=found.scheduler.get("prediction_type") or "epsilon",
        tokenizers=found.tokenizers,
        zero_empty_negative=family == "xl"
        and bool(found.index.get("force_zeros_for_empty_prompt", True)),
        digests={},
        extras=found.extras,
    )


def _folder_family(folder: ModelFolder) -> str:
    if "text_encoder_2" in folder.networks:
        return "xl"
    return "sd2" if folder.networks["unet"].config.get("use_linear_projection") else "sd1"


def _open_file(path: Path, files: FileReader) -> ModelManifest:
    file = files.weights(path)
    found = identify.identify_file(path, file.header)
    if found.kind != "checkpoint":
        raise InputError(f"{short(path)} is {found.what}; {identify.how_to_use(found)}")
    family = found.family
    clip = diffusers_folder.read_tokenizer_files(CLIP, files)
    return ModelManifest(
        path=path,
        family=family,
        what=f"{identify.FAMILIES[family]}, single file",
        networks={
            name: ComponentFiles(name, config, path, (file,), ldm_keys.PREFIXES[name][family])
            for name, config in found.configs.items()
            if name != "scheduler"
        },
        scheduler=found.configs["scheduler"],
        prediction=found.prediction,
        tokenizers={"tokenizer": clip} | ({"tokenizer_2": clip} if family == "xl" else {}),
        zero_empty_negative=family == "xl",
        digests={},
    )


def _open_autoencoder(path: Path, family: str, files: FileReader) -> ComponentFiles:
    if path.is_dir():
        folder = path.parent if (path / "config.json").is_file() else path
        if folder is not path and path.name != "vae":
            raise InputError(
                f"{short(path)} is no autoencoder: give its .safetensors file, a model's folder, or"
                " the folder vae of one."
            )
        part = diffusers_folder.read_network(folder, "vae", files)
        return ComponentFiles("vae", part.config, folder / "vae", part.weights)
    file = files.weights(path)
    found = identify.identify_file(path, file.header)
    if found.kind == "checkpoint" and "vae" in found.configs:
        prefix = ldm_keys.PREFIXES["vae"][found.family]
        return ComponentFiles("vae", found.configs["vae"], path, (file,), prefix)
    if found.kind != "vae":
        raise InputError(f"{short(path)} is {found.what}, not an autoencoder.")
    try:
        bare_prefix, config = ldm_configs.read_vae_file(file.header.shapes(), family)
    except ldm_configs.DamagedCheckpoint as fault:
        raise InputError(f"{short(path)} {fault}.") from None
    return ComponentFiles("vae", config, path, (file,), bare_prefix)
