"""What a LoRA was made for, from its header alone."""

from __future__ import annotations

import pytest

from pipeline.lora import is_lora, lora_family

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
XL = "lora_unet_input_blocks_7_1_transformer_blocks_"


def header(**shapes) -> dict:
    return {k: {"dtype": "F16", "shape": v, "data_offsets": [0, 0]} for k, v in shapes.items()}


@pytest.mark.parametrize(
    "name, shape, made_for",
    [
        (UNET + "attn2_to_k.lora_down.weight", [4, 768], "SD 1.x"),
        (UNET + "attn2_to_v.lora_down.weight", [4, 1024], "SD 2.x"),
        (XL + "0_attn2_to_k.lora_down.weight", [4, 2048], "SD XL"),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight",
            [4, 768],
            "SD 1.x",
        ),
        ("unet.x.attn2.processor.to_k_lora.down.weight", [4, 1024], "SD 2.x"),
        ("unet.x.attn2.to_v.lora.down.weight", [4, 2048], "SD XL"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight", [4, 640], ""),
        (XL + "4_attn1_to_q.lora_down.weight", [4, 1280], "SD XL"),
        (UNET + "attn1_to_q.lora_down.weight", [4, 768], ""),
        (UNET + "attn2_to_q.lora_down.weight", [4, 768], ""),
        (
            "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
            [4, 768],
            "SD 1.x",
        ),
        (
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
            [4, 1024],
            "SD 2.x",
        ),
        (
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
            [4, 768],
            "SD XL",
        ),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", [4, 1280], "SD XL"),
        ("lora_unet_double_blocks_4_img_attn_qkv.lora_down.weight", [4, 768], ""),
        ("transformer.transformer_blocks.4.attn2.to_k.lora_A.weight", [4, 1024], ""),
    ],
)
def test_family(name, shape, made_for):
    assert lora_family(header(**{name: shape})) == made_for
    assert is_lora(header(**{name: shape}))


def test_other_names_beside_do_not_mislead():
    te1 = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"
    flux = "lora_unet_single_blocks_0_linear1.lora_down.weight"
    assert lora_family(header(**{te1: [4, 768], flux: [4, 3072]})) == ""
    width = UNET + "attn2_to_k.lora_down.weight"
    assert lora_family(header(**{te1: [4, 768], width: [4, 768]})) == "SD 1.x"


def test_a_checkpoint_and_an_embedding_are_no_lora():
    assert not is_lora(header(**{"model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3]}))
    assert not is_lora(header(emb_params=[4, 768]))
    assert not is_lora({})
    assert is_lora(header(**{UNET + "attn1_to_q.hada_w1_a": [4, 320]}))
