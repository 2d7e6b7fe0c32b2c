"""Texts of chapter i, latents and noise, in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    "zero_latents_head_title": ("A picture as few numbers", "用很少的数表示一幅图"),
    "zero_latents_numbers": (
        "To a computer a picture is three numbers for every pixel: red, green, blue. Most of them "
        "say little, for neighbours are alike. An autoencoder is a pair of networks that learned "
        "to keep what matters: the encoder presses a picture into a small block of numbers, the "
        "latents, and the decoder makes a picture of them again.",
        "在计算机眼里，图片就是每个像素三个数：红、绿、蓝。相邻像素很像，所以大多数数没有多少信息。"
        "自动编码器是一对学会取舍的网络：编码器把图片压成一小块数，叫作潜变量；"
        "解码器再把它们变回图片。",
    ),
    "zero_latents_small": (
        "Stable Diffusion never draws pixels. It draws latents, and the decoder paints at the end. "
        "That is why it fits on an ordinary computer. Try it: give a picture of your own, or let "
        "the model draw one.",
        "Stable Diffusion 从不直接画像素：它画潜变量，最后由解码器上色成图。"
        "所以普通电脑也跑得动。试一试：放入你自己的图片，或让模型画一幅。",
    ),
    "zero_own_picture": ("Your own picture", "你自己的图片"),
    "zero_draw_prompt": ("Or a sentence to draw", "或者写一句话来画"),
    "zero_before": (
        "Picture: 3 × {height} × {width} = {count:,}",
        "图片：3 × {height} × {width} = {count:,}",
    ),
    "zero_middle": (
        "Latents: {c} × {h} × {w} = {count:,}. Each channel is shown in grey, with its smallest "
        "and its largest number.",
        "潜变量：{c} × {h} × {w} = {count:,}。每个通道以灰度显示，下面是其最小值和最大值。",
    ),
    "zero_after": (
        "Decoded: off by {error:.1f} of 255 on average",
        "解码后：平均相差 {error:.1f}（满值 255）",
    ),
    "zero_counted": (
        "{pixels:,} numbers became {numbers:,}: {times:.0f} times fewer. At {side}×{side}, the "
        "size of Stable Diffusion 1, {famous_pixels:,} become {famous_numbers:,}: "
        "{famous_times:.0f} times fewer.",
        "{pixels:,} 个数变成了 {numbers:,} 个，只有原来的 1/{times:.0f}。"
        "在 Stable Diffusion 1 的 {side}×{side} 下，{famous_pixels:,} 个变成 "
        "{famous_numbers:,} 个，只有 1/{famous_times:.0f}。",
    ),
    "zero_noise_title": ("Noise, a little at a time", "一点一点加噪声"),
    "zero_noise_spoiled": (
        "Diffusion models learn from pictures that were spoiled on purpose. The timestep t says "
        "how much: at t = 0 hardly at all, at the last one nothing of the picture is left to see.",
        "扩散模型从故意弄坏的图片中学习。时间步 t 表示弄坏的程度：t = 0 时几乎没变，"
        "到最后一个 t，图片已经完全看不出来。",
    ),
    "zero_noise_drag": (
        "Drag t. The noisy latents x_t are a mixture of the clean latents x_0 and of noise ε, "
        "plain random numbers. Their two shares come from a fixed table of the model, and "
        "their squares always add up to one, so the numbers stay of one size.",
        "拖动 t。带噪的潜变量 x_t 是干净的潜变量 x_0 与噪声 ε（普通的随机数）的混合。"
        "两个系数来自模型的一张固定的表，它们的平方和总是 1，所以数的大小保持不变。",
    ),
    "zero_noise_back": (
        "To draw is to go the other way: from noise at the last t, back to a picture at t = 0. For "
        "that, someone must say which part is noise. That is the UNet, in chapter three.",
        "画图就是反着走：从最后一个 t 的噪声，一步步回到 t = 0 的图片。"
        "为此要有人指出哪一部分是噪声，这就是第三章的 UNet。",
    ),
    "zero_clean": ("the latents, decoded", "潜变量（解码后）"),
    "zero_pure": ("noise alone", "纯噪声"),
    "zero_mixed": ("what the UNet is given", "UNet 看到的"),
    "zero_drag": ("Timestep", "时间步"),
    "zero_curves": (
        "Share of the picture (falling) and of noise (rising) over t",
        "随 t 变化：图片的系数（下降）与噪声的系数（上升）",
    ),
    "zero_quick": (
        "On this processor the pictures are quick previews of the latents.",
        "在这个处理器上，图片是潜变量的快速预览。",
    ),
}
