"""The UNet: its size, timesteps and loss."""

import pytest
import torch

from pipeline.training.emoji import unet

pytestmark = pytest.mark.quick


def seeded(n=0):
    return torch.Generator().manual_seed(n)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifted_timesteps_have_the_distribution_they_promise(shift):
    t = unet.sample_timesteps(200_000, 1000, seeded(6), shift).float()
    assert t.min() >= 0 and t.max() == 999
    for share in (0.25, 0.5, 0.9):  # quantiles of shift * u / (1 + (shift - 1) * u)
        wanted = 1000 * shift * share / (1 + (shift - 1) * share)
        assert abs(t.quantile(share).item() - wanted) < 6


class Oracle(torch.nn.Module):
    """Knows the clean latents and so the exact answer, whatever it is asked for."""

    def __init__(self, clean, alphas, prediction):
        super().__init__()
        self.clean, self.alphas, self.prediction = clean, alphas, prediction

    def forward(self, x, t, encoder_hidden_states, return_dict):
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        noise = (x - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * self.clean
        return (velocity if self.prediction == "v_prediction" else noise,)


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_the_exact_answer_has_no_loss_and_another_has(prediction):
    clean = torch.randn(8, 4, 4, 4, generator=seeded())
    alphas = unet.make_scheduler(prediction).alphas_cumprod
    other = "epsilon" if prediction == "v_prediction" else "v_prediction"
    for kind, right in ((prediction, True), (other, False)):
        oracle = Oracle(clean, alphas, kind)
        loss = unet.denoising_loss(oracle, clean, None, alphas, seeded(), prediction=prediction)
        assert (loss < 1e-6) == right


def test_unet_is_small_enough_and_reads_the_words():
    torch.manual_seed(0)
    model = unet.build(192).eval()
    assert sum(p.numel() for p in model.parameters()) <= 10_000_000
    x, t = torch.randn(1, 4, 16, 16), torch.tensor([500])
    with torch.no_grad():
        outs = [model(x, t, torch.randn(1, 77, 192, generator=seeded(i))).sample for i in (1, 2)]
    assert outs[0].shape == x.shape and not torch.allclose(*outs)
