"""Texts of the tab From zero that several chapters use, in English and Chinese.

The texts of one chapter are in a file of its own beside this one.
"""

TEXTS = {  # key: (English, Chinese)
    "zero_lead": (
        "How Stable Diffusion works, in five short chapters. Nothing here is a drawing of the "
        "idea: every number and every picture is computed now, by the model that is loaded.",
        "用五个小章节讲清 Stable Diffusion 是怎样工作的。这里没有示意图："
        "每个数、每幅图都由载入的模型当场算出。",
    ),
    "zero_places": ("Where it stands in this repository", "代码在本仓库的位置"),
    "zero_working": ("Working…", "正在计算……"),
    # what several chapters use
    "zero_draw": ("Draw one", "画一幅"),
    "zero_channel": ("Channel {number} of the latents", "潜变量的第 {number} 个通道"),
}
