"""Texts of the tab PNG info and of a receipt's verdict, in English and Chinese."""

from pipeline.metadata.verdict import SENTENCES

TEXTS = {  # key: (English, Chinese)
    "info_drop": ("A picture with its settings", "带有参数的图片"),
    "info_drop_hint": (
        "A PNG, JPEG or WebP made here or by another Stable Diffusion program, as the file it was "
        "saved to: chat programs and screenshots lose the settings.",
        "由本页或其他 Stable Diffusion 程序生成的 PNG、JPEG 或 WebP 原文件。"
        "聊天软件转发和截图会丢失参数。",
    ),
    "info_paste": ("Or paste the parameters text", "或粘贴参数文本"),
    "info_none": ("What the picture was made with will stand here.", "这里会显示图片的生成参数。"),
    "info_alt": ("The picture that was read", "读取的图片"),
    # the receipt and its verdict
    "verify": ("Verify", "验证"),
    "verify_title": ("Receipt", "凭据"),
    "verify_offer": (
        "This picture carries a receipt: its options, the hashes of the model {model}, and a mark "
        "of the latents after each of its {steps} steps. It is made again here and compared.",
        "这幅图片带有凭据：参数、模型 {model} 的哈希，以及 {steps} 步中每一步潜变量的印记。"
        "本页会重新生成它并逐步比较。",
    ),
    "verify_none": (
        "It carries no receipt, so it cannot be verified. Only PNG files made here do, and a "
        "grid's sheet does not: its pictures do.",
        "它没有凭据，因此无法验证。只有这里生成的 PNG 才有凭据；网格大图没有，其中每一幅有。",
    ),
    "verify_picture": ("The picture that it began from", "它的原图"),
    "verify_mask": ("Its mask", "它的蒙版"),
    "verify_needs": (
        "It began from another picture, which its file does not hold: give the same one.",
        "它由另一幅图片而来，文件里并没有那幅图：请提供同一幅。",
    ),
    "verify_same": (
        "Step {step} of {total}, so far identical ✓",
        "第 {step} / {total} 步，至此完全一致 ✓",
    ),
    "verify_apart": (
        "Step {step} of {total}, no longer identical",
        "第 {step} / {total} 步，已不一致",
    ),
    "verdict_identical": ("Identical", "完全一致"),
    "verdict_departs": ("Departs", "出现偏离"),
    "verdict_tampered": ("Tampered with", "被改动过"),
    "verdict_other": ("Another model", "模型不同"),
    "verify_steps": ("Latents, step by step", "逐步的潜变量"),
    "verify_step_same": ("Step {step}: identical", "第 {step} 步：一致"),
    "verify_step_apart": ("Step {step}: differs", "第 {step} 步：不同"),
    "verify_step_open": ("Step {step}: not yet made", "第 {step} 步：尚未生成"),
    "verify_again": ("Made again", "重新生成的"),
    "verify_difference": ("Where it differs", "不同之处"),
    "around_title": ("Not as it was", "与当时不同的"),
    "around_same": (
        "Device, backends and versions are as they were.",
        "设备、后端和版本都与当时相同。",
    ),
    "around_then": ("Then", "当时"),
    "around_now": ("Now", "现在"),
    "around_device": ("Device", "设备"),
    "around_device_name": ("Device's name", "设备名称"),
    "around_instructions": ("Instructions", "指令集"),
    "around_threads": ("Threads", "线程数"),
    "around_dtype": ("Type of numbers", "数值类型"),
    "around_attention": ("Attention", "注意力后端"),
    "around_vae_attention": ("Attention of the autoencoder", "自编码器的注意力"),
    "around_group_norm": ("GroupNorm", "GroupNorm 后端"),
    "around_memory": ("Memory", "内存"),
    "around_lora": ("LoRAs", "LoRA 文件"),
    "around_embedding": ("Textual inversions", "文本反转文件"),
    "around_unet": ("UNet's weights", "UNet 权重"),
    "around_vae": ("Autoencoder's weights", "自编码器权重"),
    "around_text_encoder": ("Text encoder's weights", "文本编码器权重"),
    "around_text_encoder_2": ("Second text encoder's weights", "第二文本编码器权重"),
    "around_platform": ("System", "系统"),
}
# Of a verdict's sentences: the English ones stand in pipeline/metadata/verdict.py.
_CHINESE = {
    "identical": "全部 {steps} 步和每个像素都重现了，一个比特都不差。",
    "identical_pixels": "每个像素都重现了，一个比特都不差。",
    "departs_start": "在 {steps} 步的第一步之前，潜变量就已不同。",
    "departs_step": "从第 {step} / {steps} 步起，潜变量不同。",
    "departs_pixels": "全部 {steps} 步都重现了，但解码出的像素略有不同。",
    "amount": "该处相差 {amount:.2g}（均方根，由印记估算）。",
    "final": "最后相差 {final:.2g}。",
    "pixels": "{share:.1%} 的像素不同，总体平均相差 {mean:.2g}（满值 255），最多 {largest}。",
    "no_pixels": "像素相同。",
    "size": "重新生成的图片尺寸不同。",
    "tampered_receipt": "凭据写好之后被人改过。",
    "tampered_pixels": "像素与凭据所记的不符。",
    "tampered_text": "参数文本与凭据所记的不符。",
    "true": "凭据中的 {steps} 步全部重现：重新生成的图片就是真正的原图。",
    "true_text": "全部 {steps} 步和每个像素都重现了：只有文本不同。",
    "other": "它由 {model} 生成，而这里的是 {here}。没有重新生成。",
}
TEXTS |= {f"said_{key}": (SENTENCES[key], chinese) for key, chinese in _CHINESE.items()}
