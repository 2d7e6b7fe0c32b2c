"""The autoencoder: its size, its losses, normalised latents, and training the decoder alone."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.training.emoji import vae


def seeded(n=0):
    return torch.Generator().manual_seed(n)


def test_autoencoder_is_f8_with_4_channels_and_small():
    model = vae.build()
    with torch.no_grad():
        assert model.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean.shape == (1, 4, 8, 8)
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000


@pytest.mark.quick
def test_normalising_latents_does_not_change_what_is_decoded():
    torch.manual_seed(0)
    model = vae.build().eval()
    pictures = torch.rand(6, 3, 64, 64, generator=seeded()) * 2 - 1
    with torch.no_grad():
        model.quant_conv.bias[:4] = torch.tensor([3.0, -1.0, 0.5, 2.0])
        model.quant_conv.weight[1] *= 7
        before = model.decode(model.encode(pictures).latent_dist.mode()).sample
        spread = model.encode(pictures).latent_dist.std
        deviation = model.encode(pictures).latent_dist.mode().std((0, 2, 3))
        vae.normalise(model, pictures)
        posterior = model.encode(pictures).latent_dist
        after = model.decode(posterior.mode()).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(posterior.mode().mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(posterior.mode().std((0, 2, 3)), torch.ones(4), atol=1e-3)
    assert torch.allclose(posterior.std * deviation.view(1, 4, 1, 1), spread, rtol=1e-3)
    scale = model.config.scaling_factor
    assert abs(posterior.mode().std().item() * scale - 1) < 1e-3


def test_the_hint_pulls_three_channels_to_the_mean_colour(tmp_path, tiny_data, vocabulary):
    """The hint is in the loss, hard at first, then gently; a frozen encoder has none."""
    torch.manual_seed(0)
    model = vae.build()
    pictures = vae.PictureSource(tiny_data, vocabulary)
    seen = pictures(4, seeded(3))
    with torch.no_grad():
        without = vae.loss_terms(model, seen, seeded(4))
        half = vae.loss_terms(model, seen, seeded(4), 0.5)
        mean = model.encode(seen).latent_dist.mode()[:, :3]
    wanted = F.mse_loss(mean, 2 * F.avg_pool2d(seen, 8))
    assert torch.allclose(half["loss"] - without["loss"], wanted / 2, rtol=1e-4)

    def loss(step, **how):
        trainer = vae.make_trainer(model, pictures, tmp_path, batch=4, **how)
        with torch.no_grad():
            return trainer.step_fn(seeded(5), step)["loss"].item()

    last = loss(vae.HINT_STEPS)
    assert loss(0) > loss(vae.HINT_STEPS // 2) > last == loss(2 * vae.HINT_STEPS)
    assert last > loss(0, decoder_only=True)


def test_decoder_only_leaves_the_latents_alone(tmp_path, tiny_data, vocabulary):
    torch.manual_seed(0)
    model = vae.build()
    pictures = vae.PictureSource(tiny_data, vocabulary)
    frozen = {k: v.clone() for k, v in model.state_dict().items()}
    trainer = vae.make_trainer(model, pictures, tmp_path, batch=4, decoder_only=True)
    trainer.run_step()
    moved = {
        k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, frozen[k])
    }
    assert moved == {"decoder", "post_quant_conv"}
