"""cuDNN's attention: the operator's arguments and result, and refusals in one sentence."""

import pytest
import torch

from pipeline.backends import attention_cudnn, failures

CARD, HALF = torch.device("cuda", 0), torch.float16


@pytest.fixture(autouse=True)
def fresh():
    attention_cudnn._probe.cache_clear()
    yield
    attention_cudnn._probe.cache_clear()


def test_the_operator_takes_heads_first_and_the_result_is_shaped_like_q():
    q = torch.empty(2, 64, 5, 40, device="meta", dtype=HALF)
    k = torch.empty(2, 77, 5, 40, device="meta", dtype=HALF)
    out = attention_cudnn.run(q, k, k)
    assert out.shape == q.shape and out.dtype == HALF


def test_what_a_backward_pass_needs_is_kept_only_for_one(monkeypatch):
    asked = []

    def operator(q, k, v, mask, gradient):
        asked.append(gradient)
        return (q,)

    monkeypatch.setattr(
        torch.ops.aten, "_scaled_dot_product_cudnn_attention", operator, raising=False
    )
    q = torch.ones(1, 2, 1, 8, requires_grad=True)
    attention_cudnn.run(q, q, q)
    with torch.no_grad():
        attention_cudnn.run(q, q, q)
    attention_cudnn.run(q.detach(), q.detach(), q.detach())
    assert asked == [True, False, False]


def test_devices_without_cudnn_are_refused(monkeypatch):
    assert attention_cudnn.unsupported(torch.device("cpu"), HALF) == (
        "cuDNN's attention needs an NVIDIA GPU, not cpu."
    )
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "not an AMD GPU" in attention_cudnn.unsupported(CARD, HALF)


def test_a_small_call_decides_for_each_head_size(monkeypatch):
    """Here no GPU answers: the call fails, and the reason is one line. ZeroGPU has none yet."""
    monkeypatch.setattr(torch.version, "hip", None)
    tried = []

    def linspace(low, high, count, device):
        tried.append(count)
        raise RuntimeError("no card\nat all")

    monkeypatch.setattr(torch, "linspace", linspace)
    reason = attention_cudnn.unsupported(CARD, HALF, 40)
    assert reason == "cuDNN's attention failed on cuda:0: no card"
    attention_cudnn.unsupported(CARD, HALF, 40)
    attention_cudnn.unsupported(CARD, HALF)
    assert tried == [64 * 40, 64 * 64]
    attention_cudnn._probe.cache_clear()
    monkeypatch.setattr(failures, "ON_ZERO_GPU", True)
    assert attention_cudnn.unsupported(CARD, HALF, 40) is None


@pytest.mark.parametrize("usable, wrong", [(False, False), (True, True), (True, False)])
def test_what_pytorch_does_not_take_and_what_is_wrong_is_refused(monkeypatch, usable, wrong):
    cuda = torch.backends.cuda
    monkeypatch.setattr(cuda, "SDPAParams", lambda *_: None)
    monkeypatch.setattr(cuda, "can_use_cudnn_attention", lambda _: usable)
    right = torch.nn.functional.scaled_dot_product_attention

    def run(q, k, v):
        out = right(*(x.transpose(1, 2).float() for x in (q, k, v))).transpose(1, 2)
        return out + 0.1 * wrong

    monkeypatch.setattr(attention_cudnn, "run", run)
    reason = attention_cudnn._probe("cpu", HALF, 512)
    if not usable:
        assert reason == "cuDNN has no attention on cpu for heads of 512 in float16."
    else:
        assert reason == ("cuDNN's attention gave a wrong answer on cpu." if wrong else None)
