"""Texts of the tab Look inside in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    "inside_idle": (
        "Draw a picture and open it with Look inside: every step, every word, every branch.",
        "画一幅图，再点“看内部”：每一步、每个词、每个分支都在这里。",
    ),
    "inside_example": ("Draw one now", "现在画一幅"),
    "inside_example_hint": (
        "The prompt and settings of the tab Generate are used.",
        "使用“生成”标签页里的提示词和设置。",
    ),
    "inside_none": (
        "There is no picture to look into yet: draw one first.",
        "还没有可以查看的图片：请先画一幅。",
    ),
    "inside_not_recorded": (
        "This picture's steps were not kept: it is a sheet of others, or took too much memory.",
        "这幅图的步骤没有保留：它是拼图，或者占用内存太多。",
    ),
    "inside_zero_gpu": (
        "This server has its GPU for seconds at a time and keeps no steps; run it on a machine of "
        "your own to look inside.",
        "这台服务器只短暂借用 GPU，不保留步骤；请在自己的机器上运行来查看内部。",
    ),
    "inside_evicted": (
        "The steps of this picture were dropped to make room for others. It can be made again.",
        "这幅图的步骤已被清除，为其他图片腾出空间。可以重新生成。",
    ),
    "inside_evicted_task": (
        "The steps of this picture were dropped to make room; it began from another picture, so "
        "draw it again in its own tab.",
        "这幅图的步骤已被清除；它从另一幅图开始，请在原来的标签页重新画。",
    ),
    "inside_again": ("Make it again", "重新生成"),
    "inside_ready": (
        "Move the slider, point at a word or at a place.",
        "拖动滑块，指向一个词或图上的一处。",
    ),
    "inside_made": ("A new branch from step {step}", "从第 {step} 步分出新的一支"),
    "inside_opened": ("{count} pictures opened", "打开了 {count} 幅图"),
    # in the viewer
    "inside_kind": ("What is seen", "看什么"),
    "inside_kind_clean": ("Believed", "预想"),
    "inside_kind_latents": ("Noisy", "带噪"),
    "inside_kind_noise": ("Noise", "噪声"),
    "inside_kind_cond": ("With words", "有词"),
    "inside_kind_uncond": ("Without", "无词"),
    "inside_kind_guidance": ("Guidance", "引导"),
    "inside_about_clean": (
        "The clean picture that the model believes in at this step, decoded.",
        "模型在这一步预想的干净图片（已解码）。",
    ),
    "inside_about_latents": (
        "The noisy latents that the model sees at this step, decoded.",
        "模型在这一步看到的带噪潜变量（已解码）。",
    ),
    "inside_about_noise": (
        "What the model takes for noise, decoded: it is subtracted.",
        "模型认为是噪声的部分（已解码），将被减去。",
    ),
    "inside_about_cond": (
        "What it would believe in if it only listened to the prompt.",
        "只听提示词时，它会预想的图片。",
    ),
    "inside_about_uncond": (
        "What it would believe in without the prompt (with the negative one).",
        "不听提示词（只听反向提示词）时，它会预想的图片。",
    ),
    "inside_about_guidance": (
        "With words less without: guidance goes further this way. Grey is no difference.",
        "有词减无词：引导会沿这个方向走得更远。灰色表示没有差别。",
    ),
    "inside_step": ("Step", "步"),
    "inside_sigma": ("noise σ", "噪声 σ"),
    "inside_time": ("time t", "时间 t"),
    "inside_play": ("Play", "播放"),
    "inside_pause": ("Pause", "暂停"),
    "inside_compare": ("Compare with another step", "与另一步比较"),
    "inside_divider": ("Line between the two steps", "两步之间的分界线"),
    "inside_loading": ("Decoding…", "正在解码……"),
    "inside_words": ("Words", "词"),
    "inside_words_hint": (
        "Point at a word to light where it looks, at the picture to light the words that look "
        "there. Click a word to keep it lit.",
        "指向一个词，点亮它看的地方；指向图上一处，点亮看这里的词。点一下词可以固定。",
    ),
    "inside_this": ("this step", "这一步"),
    "inside_every": ("all steps together", "所有步一起"),
    "inside_layers": ("Layers", "层"),
    "inside_all_layers": ("all layers", "所有层"),
    "inside_no_words": ("The prompt is empty.", "提示词是空的。"),
    "inside_tree": ("Branches", "分支"),
    "inside_side": ("Side by side", "并排"),
    "inside_from": ("From step {step}", "从第 {step} 步"),
    "inside_nothing": ("nothing changed", "没有改变"),
    # a branch
    "inside_branch": ("Go on differently from here", "从这里换一种走法"),
    "inside_branch_hint": (
        "What you leave as it is stays as it was; without a change the same picture comes out, to "
        "the last bit. Steps already taken are not computed again.",
        "不改的保持原样；什么都不改，就得到完全相同的图片。走过的步骤不会重新计算。",
    ),
    "inside_at": ("From step", "从第几步"),
    "inside_prompt": ("Prompt", "提示词"),
    "inside_negative": ("Negative prompt", "反向提示词"),
    "inside_sampler": ("Sampler", "采样器"),
    "inside_schedule": ("Noise schedule", "噪声调度"),
    "inside_cfg": ("Guidance", "引导强度"),
    "inside_cfg_rescale": ("Guidance rescale", "引导缩放"),
    "inside_noise_seed": ("Seed of the noise", "噪声种子"),
    "inside_noise_seed_hint": (
        "Of what the sampler adds from here on; empty: as it was.",
        "采样器此后加入的噪声；留空则不变。",
    ),
    "inside_go": ("Branch", "分支"),
    "inside_export": ("Export the tree", "导出分支树"),
    "inside_file": ("The tree, all of its steps", "分支树，包含每一步"),
    "inside_import": ("Open a tree", "打开分支树"),
}
