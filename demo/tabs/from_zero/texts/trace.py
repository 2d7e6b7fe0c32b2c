"""Texts of chapter v, every stage of one picture, in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    "zero_whole_head_title": ("All stages of your picture", "你的图片的每一步"),
    "zero_whole_lead": (
        "Everything at once, on a picture of your own: from the words to the picture, what every "
        "stage makes of it, in which shape, and how long it took just now. Sampler, steps, "
        "guidance and size are those of the settings under Text to image.",
        "把所有环节连起来，用你自己的图：从文字到图片，每一步做出了什么、是什么形状、刚才用了多久。"
        "采样器、步数、引导和尺寸用“文生图”页里的设置。",
    ),
    "zero_whole_try": (
        "Try it: the same prompt with another seed changes the noise and all that follows it, but "
        "no number of the context. Another prompt with the same seed keeps the noise. The first "
        "belief is a blur of all that the prompt could mean; the colours are decided long before "
        "the edges.",
        "试一试：同一提示词换个种子，噪声和之后的一切都变了，上下文的数却一个没变；"
        "同一种子换个提示词，噪声不变。最初“相信”的图是提示词各种可能的平均，一团模糊；"
        "颜色早早定下，边缘很晚才清楚。",
    ),
    "zero_stopped": ("Stopped", "已停止"),
    "zero_stage_prompt": ("Prompt", "提示词"),
    "zero_stage_tokens": ("Tokens", "词元"),
    "zero_stage_context": ("Context", "上下文"),
    "zero_stage_noise": ("Noise", "噪声"),
    "zero_stage_step": ("UNet and sampler, step by step", "UNet 与采样器，一步一步"),
    "zero_stage_latents": ("Latents", "潜变量"),
    "zero_stage_picture": ("Picture", "图片"),
    "zero_stage_parameters": ("Parameters", "生成参数"),
    "zero_characters": ("{count} characters", "{count} 个字符"),
    "zero_padding": ("and {count} × padding", "另有 {count} 个填充"),
    "zero_whole_context_alt": (
        "The context as colours: a row for each token, what differs from the mean of all",
        "上下文的热图：每个词元一行，显示与全体平均的差",
    ),
    "zero_picture_alt": ("The finished picture", "完成的图片"),
    "zero_seen": ("sees, here the first channel", "看到的，这里是第一个通道"),
    "zero_believed": ("believes", "相信的图片"),
    "zero_seen_alt": (
        "First channel of the latents at step {step}",
        "第 {step} 步潜变量的第一个通道",
    ),
    "zero_believed_alt": (
        "The picture that the model believes in at step {step}",
        "第 {step} 步模型相信的图片",
    ),
    "zero_steps_took": ("{count} steps, {seconds}", "{count} 步，{seconds}"),
    "zero_all_took": ("all in all {seconds}", "总共 {seconds}"),
    "zero_milliseconds": ("{count} ms", "{count} 毫秒"),
    "zero_seconds": ("{count} s", "{count} 秒"),
}
