"""Run a model once on tiny inputs, so that a broken model fails while it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, short

if TYPE_CHECKING:
    import torch

    from ..latents.preview import Preview
    from ..model_files.manifest import ModelManifest
    from ..prompt.encode import TextEncoders


@dataclass
class SmokeTest:
    """A test that a loaded model works: it runs the networks once on latents of 8x8.

    Calling it returns (the map from latents to RGB for preview pictures, what the UNet predicts:
    "epsilon" or "v_prediction"). The call raises InputError where the model does not run or its
    output is not finite. device, dtype: of UNet and text encoders.
    """

    manifest: ModelManifest
    text: TextEncoders
    unet: Any
    vae: Any
    device: torch.device
    dtype: torch.dtype

    def __call__(self) -> tuple[Preview, str]:
        import torch

        from ..backends import KernelFailed
        from ..latents.preview import Preview

        place = short(self.manifest.path)
        try:
            latents = torch.zeros((1, self.unet.config.in_channels, 8, 8))
            output = self._predict(latents, 500)
            if (
                output.shape != latents[:, : self.vae.config.latent_channels].shape
                or not torch.isfinite(output).all()
            ):
                raise InputError(
                    f"The UNet of {place} does not work in {str(self.dtype)[6:]}: its output is"
                    " not finite or has another shape than the latents."
                )
            prediction = self.manifest.prediction or self._guess_prediction()
            return Preview.fit(self.vae), prediction
        except (InputError, KernelFailed, torch.OutOfMemoryError):
            raise
        except Exception as error:
            reason = short(str(error).strip() or repr(error))
            raise InputError(f"{place} was loaded but does not run: {reason}") from None

    def _guess_prediction(self) -> str:
        """Find out what the UNet of an SD 2.x predicts, where its files do not say: run it once.

        Returns "epsilon" or "v_prediction". For a constant input at the last timestep (999), a
        prediction of the noise is close to the input and a prediction of the velocity far below it.
        AUTOMATIC1111 does the same.
        """
        import torch

        latents = torch.full((1, self.unet.config.in_channels, 8, 8), 0.5)
        mean = self._predict(latents, 999).mean() - latents.mean()
        return "v_prediction" if mean < -1 else "epsilon"

    def _predict(self, latents: torch.Tensor, t: int) -> torch.Tensor:
        """Run the UNet on `latents` (1, C, h, w) at timestep `t` with an empty prompt.

        Returns its output (1, C, h, w), float32 on the CPU.
        """
        import torch

        from ..denoising.denoiser import added_cond_kwargs
        from ..prompt.encode import encode_prompts
        from ..prompt.syntax import parse

        empty, _, _ = encode_prompts(self.text, parse("", 1), parse("", 1))
        context, pooled, _ = empty.at(0)
        more = added_cond_kwargs(pooled, 64, 64, self.device, self.dtype)
        with torch.no_grad():
            return (
                self.unet(
                    latents.to(self.device, self.dtype),
                    t,
                    encoder_hidden_states=context.to(self.device, self.dtype),
                    **more,
                )
                .sample.float()
                .cpu()
            )
