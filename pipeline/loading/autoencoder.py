"""Choose the autoencoder of a model: its own, the one that the user named, or one of ./models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import InputError, short
from ..model_files import library
from ..model_files.identify import FAMILIES
from ..model_files.manifest import Autoencoder, ModelManifest, open_autoencoder


def with_vae(manifest: ModelManifest, path: Path | None) -> ModelManifest:
    """Return `manifest` with the files of the autoencoder that the model will use.

    path: of the autoencoder that the user named: a .safetensors file, a model folder or the folder
    `vae` of one. None: the model's own; for a model without one, one of the same family from
    ./models, and a warning in the manifest names it. Raises InputError where there is none, or its
    latents have another number of channels than the UNet's.
    """
    warnings, hashed = manifest.warnings, bool(manifest.digests)
    if path is not None:
        vae = open_autoencoder(path, manifest.family, hashed=hashed)
    elif "vae" in manifest.networks:
        return manifest
    else:
        vae, used = _autoencoder_of_family(manifest.family, hashed)
        name = manifest.path.name
        warnings += (f"{name} holds no autoencoder; {used} is used instead, --vae names another.",)
    latents = vae.files.config.get("latent_channels", 4)
    takes = manifest.networks["unet"].config.get("out_channels", 4)
    if latents != takes:
        raise InputError(
            f"{short(vae.files.place)} has {latents} latent channels, this model's UNet takes"
            f" {takes}; it is another architecture's autoencoder."
        )
    return replace(
        manifest,
        networks=manifest.networks | {"vae": vae.files},
        digests=manifest.digests | ({"vae": vae.digest} if hashed else {}),
        warnings=warnings,
    )


def _autoencoder_of_family(family: str, hashed: bool) -> tuple[Autoencoder, str]:
    """Return an autoencoder from ./models for a checkpoint that has none, and its name there.

    family: "sd1", "sd2" or "xl", of the checkpoint. hashed: whether to compute the autoencoder's
    SHA-256. One in another checkpoint of the family is preferred to a file that is only an
    autoencoder, because shapes do not tell SD XL's from SD 1.x's. Raises InputError where there is
    none.
    """
    label = FAMILIES[family]
    checkpoints = library.find_entries("checkpoint").values()
    own = [e for e in checkpoints if e.path.is_relative_to(library.OWN)]
    own = [e for e in own if e.family == label and not e.note.endswith(library.NO_VAE)]
    for entry in (e for e in (*own, *library.find_entries("vae").values()) if e.reason is None):
        return open_autoencoder(entry.path, family, hashed=hashed), entry.name
    raise InputError(
        f"This checkpoint holds no autoencoder; put one for {label} into the folder {library.OWN},"
        " or name one."
    )
