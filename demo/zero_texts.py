"""Words of the tab "From zero" and its chapters i to iii in English and Chinese, see texts.py."""

ZERO = {
    "tab_zero": ("From zero", "从零讲起"),
    "zero_lead": (
        "How Stable Diffusion works, from the first number to the picture. Every number here is "
        "computed now, by the model that is loaded.",
        "Stable Diffusion 是怎样工作的：从第一个数到一幅画。"
        "这里的每个数都是载入的模型现在算出来的。",
    ),
    "zero_latents_title": ("Latents and noise", "潜变量与噪声"),
    "zero_words_title": ("Words", "文字"),
    "zero_unet_title": ("UNet and training", "UNet 与训练"),
    "zero_places": ("Where it stands in this repository", "代码在本仓库的位置"),
}
