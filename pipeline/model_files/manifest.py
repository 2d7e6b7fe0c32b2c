"""Open a model's files, whatever their layout, and tell all that loading needs to know.

A model is a folder in diffusers' format or a single .safetensors file in the original layout.
`open` reads each small file once, and of the weights the headers and the hash; loaders take the
manifest and read nothing but tensors.
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

CLIP = Path(__file__).parents[1] / "clip"  # the tokenizer that single files leave out


@dataclass(frozen=True)
class ModelManifest:
    """What a model's files hold, checked.

    family: sd1, sd2 or xl. networks: "unet", "vae" (not in every file), "text_encoder", for XL
    "text_encoder_2". scheduler: its configuration. prediction: epsilon, v_prediction, or None
    where the files of an SD 2.x do not tell. tokenizers: "tokenizer", for XL "tokenizer_2".
    zero_empty_negative: an empty negative prompt is all zeros. digests: the SHA-256 of each
    network's files; empty where no hash was asked for. extras: generation.json and
    vocabulary.json as they are, where the model has them. warnings: sentences for the user.
    """

    path: Path
    family: str
    what: str  # in words
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
        """The first 10 hex digits of the SHA-256 of the UNet's files: A1111's "Model hash"."""
        return self.digests["unet"][:10]


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder's files, and the SHA-256 of them ("" where no hash was asked for)."""

    files: ComponentFiles
    digest: str


def open(path: Path, *, hashed: bool = True) -> ModelManifest:
    """Return the manifest of a model folder or a .safetensors file; InputError for any other.

    hashed: whether to compute the SHA-256 of the weights, which reads the whole files. A listing of
    many models passes False.
    """
    with FileReader() as files:
        manifest = _open_folder(path, files) if path.is_dir() else _open_file(path, files)
        if hashed:  # last: a damaged model gets its sentence at once
            digests = {n: files.sha256(part.files) for n, part in manifest.networks.items()}
            manifest = replace(manifest, digests=digests)
        return manifest


def open_autoencoder(path: Path, family: str, *, hashed: bool = True) -> Autoencoder:
    """Return the autoencoder in a .safetensors file of either layout, or in a folder.

    family: of the model that it is for: sd1, sd2 or xl.
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
