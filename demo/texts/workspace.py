"""Texts that several tabs share: the form, the result, the history and the status line."""

WORKSPACE = {  # key: (English, Chinese)
    "tagline": (
        "Stable Diffusion you can look into: a sentence becomes a picture, step by step.",
        "看得见过程的 Stable Diffusion：一句话，一步一步变成一幅画。",
    ),
    # the prompt
    "prompt": ("Prompt", "提示词"),
    "prompt_hint": (
        "What the picture shows, in English or Chinese",
        "想画什么？中文、英文都可以",
    ),
    "negative": ("Negative prompt", "反向提示词"),
    "negative_hint": ("What it shall not show", "不想出现什么"),
    "stop": ("Stop", "停止"),
    "examples": ("Examples", "示例"),
    "tokens": ("{used} / {room} tokens", "{used} / {room} 个词元"),
    # a picture that a task begins from
    "picture_box": ("Picture", "图片"),
    "picture_drop": (
        "Drop a picture here, paste one, or click",
        "把图片拖到这里、粘贴，或点击选择",
    ),
    "picture_ready": (
        "The picture is in its place: {width} × {height} pixels",
        "图片已放好：{width} × {height} 像素",
    ),
    "strength": ("Strength", "重绘强度"),
    "strength_hint": (
        "0 keeps the picture, 1 all but forgets it.",
        "0 保持原图，1 几乎不看原图。",
    ),
    "own_size": ("Size as the picture", "尺寸与图片相同"),
    "own_size_hint": (
        "Or near it, where the model draws better at another size.",
        "若模型更适合别的尺寸，则取接近的。",
    ),
    # enlarging
    "scale": ("Times larger", "放大倍数"),
    "upscaler": ("Enlarged by", "放大方法"),
    "upscaler_glass": ("Glassbox's own network", "Glassbox 自己的网络"),
    "upscaler_lanczos": ("Lanczos, plain", "Lanczos 插值"),
    "upscaler_latent": ("in latents, softer", "在潜空间里，更柔和"),
    # settings
    "model": ("Model", "模型"),
    "vae": ("Autoencoder", "自编码器"),
    "vae_hint": ("Turns latents into the picture.", "把潜变量变成图片。"),
    "vae_own": ("the model's own", "模型自带"),
    "model_loading": ("Loading {name}…", "正在载入 {name}……"),
    "model_ready": ("{name} is ready", "{name} 已就绪"),
    "lora": ("Add a LoRA", "添加 LoRA"),
    "lora_hint": (
        "Puts it into the prompt; the number is its strength.",
        "加到提示词里，数字是它的强度。",
    ),
    "embedding": ("Add an embedding", "添加嵌入词"),
    "embedding_hint": ("Puts its name into the prompt.", "把它的名字加到提示词里。"),
    "other_family": ("for {family}", "用于 {family}"),
    "sampler": ("Sampler", "采样器"),
    "schedule": ("Noise schedule", "噪声调度"),
    "steps": ("Steps", "步数"),
    "cfg": ("Guidance", "引导强度"),
    "seed": ("Seed", "种子"),
    "seed_hint": ("random each time", "每次随机"),
    "randomize": ("Random", "随机"),
    "reuse": ("Reuse last", "用上一个"),
    "variation_seed": ("Variation seed", "变异种子"),
    "variation_strength": ("Variation", "变异强度"),
    "variation_seed_hint": ("A second noise to mix in.", "混入的第二份噪声。"),
    "variation_strength_hint": (
        "How much of it: 0 none, 0.1 a sibling, 1 all.",
        "混入多少：0 不混，0.1 相近，1 全部。",
    ),
    "width": ("Width", "宽度"),
    "height": ("Height", "高度"),
    "count": ("Pictures", "张数"),
    "clip_skip": ("Clip skip", "跳过 CLIP 层"),
    "clip_skip_hint": (
        "Reads the prompt this many layers before the end; many anime models want 2.",
        "从倒数第几层读取提示词，许多动漫模型用 2。",
    ),
    "clip_skip_own": ("the model's own", "模型默认"),
    "cfg_rescale": ("Guidance rescale", "引导重缩放"),
    "cfg_rescale_hint": (
        "Takes the glare off strong guidance; 0 is off, 0.7 is usual.",
        "减轻强引导带来的过曝，0 为关闭，常用 0.7。",
    ),
    "attention": ("Attention", "注意力"),
    "group_norm": ("GroupNorm", "组归一化"),
    "backend_auto": ("The fastest that was measured.", "实测最快的那个。"),
    "auto_takes": ("auto", "自动"),
    "can_run": ("Runs here", "可以运行"),
    "cannot_run": ("Not here", "不能运行"),
    "kernels_checked": (
        "This project's kernels were compared with PyTorch on this GPU.",
        "本项目的内核已在这块 GPU 上与 PyTorch 核对过。",
    ),
    "kernels_checking": (
        "This project's kernels are being compared with PyTorch on this GPU. Until then PyTorch's "
        "are used.",
        "正在这块 GPU 上核对本项目的内核，在此之前使用 PyTorch 的实现。",
    ),
    "kernels_failed": (
        "This project's kernels could not be compared with PyTorch on this GPU. PyTorch's are "
        "used; the server's log says why.",
        "无法在这块 GPU 上核对本项目的内核，改用 PyTorch 的实现；原因见服务器日志。",
    ),
    "kernels_unchecked": (
        "This project's kernels have not been compared with PyTorch on this GPU yet. Until then "
        "PyTorch's are used.",
        "本项目的内核尚未在这块 GPU 上核对，在此之前使用 PyTorch 的实现。",
    ),
    # settings read from a picture
    "info_empty": ("(empty)", "（空）"),
    "info_others": ("Also written there, not used here:", "文本中还有，但这里不用："),
    "info_use": ("Use these settings", "使用这些参数"),
    "info_vary": ("Use with a new seed", "换个种子使用"),
    "info_used": ("The settings are in the form", "参数已填入"),
    # the history of this browser
    "history": ("Pictures of this browser", "本浏览器的图片"),
    "history_hint": (
        "The pictures that you make gather here with their settings. They stay in this browser "
        "alone and are still here after a reload.",
        "你生成的图片和参数会留在这里，只保存在这个浏览器里，刷新后仍在。",
    ),
    "history_clear": ("Clear history", "清空历史"),
    # the result
    "idle": ("Your picture will appear here.", "你的画会出现在这里。"),
    "ready": ("Ready", "准备就绪"),
    "pictures": ("Pictures", "图片"),
    "parameters": ("Parameters", "生成参数"),
    "parameters_hint": (
        "Everything needed to draw the picture again; it is also stored inside the PNG.",
        "重画这幅图所需的全部信息，也保存在 PNG 文件里。",
    ),
    "preview_alt": ("The picture so far", "目前的画面"),
    "send": ("Use it in:", "用于："),
    "send_none": ("There is no picture to use yet.", "还没有可用的图片。"),
    "compare": ("Compare", "对比原图"),
    "compare_label": ("Before and after", "前后对比"),
    "inside_open": ("Look inside", "看内部"),
    # the status line
    "waiting": ("Waiting for the device…", "正在等待设备……"),
    "starting": ("Reading the prompt…", "正在读取提示词……"),
    "step": ("Step {index} of {total}", "第 {index} / {total} 步"),
    "picture": ("Picture {image} of {count}", "第 {image} / {count} 张"),
    "seconds": ("{seconds:.1f} s", "{seconds:.1f} 秒"),
    "done": ("Done", "完成"),
    "done_many": ("{count} pictures done", "{count} 张已完成"),
    "stopped": ("Stopped at step {index} of {total}", "已停在第 {index} / {total} 步"),
    "stopped_early": ("Stopped before the first step", "开始之前已停止"),
    "loss_curve": ("Loss from {first:.3f} to {last:.3f}", "损失从 {first:.3f} 到 {last:.3f}"),
    "error": ("That did not work", "没有成功"),
    "broken": (
        "Something went wrong on the server; its log has the details. Please try again.",
        "服务器出了问题，详情见服务器日志。请再试一次。",
    ),
    "disk_full": (
        "The server's disk is full, so nothing more can be saved: make room on it, or try later.",
        "服务器的磁盘已满，无法再保存：请腾出空间，或稍后再试。",
    ),
}
