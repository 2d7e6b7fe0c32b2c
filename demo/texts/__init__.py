"""The page's words in English and Chinese, one row a key.

Labels, hints and buttons go through gr.I18n, which follows the browser's language. Sentences that
carry numbers are made on the server by `say`, in the language that the browser asks for.
"""

from __future__ import annotations

from functools import lru_cache

from .receipt import RECEIPT
from .tasks import TASKS

TEXTS = {  # key: (English, Chinese)
    **TASKS,
    **RECEIPT,
    "tagline": (
        "Stable Diffusion you can look into: a sentence becomes a picture, step by step.",
        "看得见过程的 Stable Diffusion：一句话，一步一步变成一幅画。",
    ),
    "tab_generate": ("Generate", "生成"),
    "tab_image_to_image": ("Image to image", "图生图"),
    "tab_inpaint": ("Inpaint", "局部重绘"),
    "tab_hires": ("High-res fix", "高清修复"),
    "tab_upscale": ("Enlarge", "放大"),
    "tab_colorize": ("Colorize", "上色"),
    "tab_character": ("Character", "角色"),
    "tab_grid": ("Grid", "网格"),
    "tab_info": ("PNG info", "图片信息"),
    "tab_kernels": ("Kernels", "内核"),
    # what to draw
    "prompt": ("Prompt", "提示词"),
    "prompt_hint": (
        "What the picture shows, in English or Chinese",
        "想画什么？中文、英文都可以",
    ),
    "negative": ("Negative prompt", "反向提示词"),
    "negative_hint": ("What it shall not show", "不想出现什么"),
    "generate": ("Generate", "生成"),
    "image_to_image": ("Draw anew", "重画"),
    "inpaint": ("Repaint", "重绘"),
    "hires": ("Generate large", "生成大图"),
    "upscale": ("Enlarge", "放大"),
    "colorize": ("Colorize", "上色"),
    "grid": ("Draw the grid", "画网格"),
    "stop": ("Stop", "停止"),
    "examples": ("Examples", "示例"),
    "tokens": ("{used} / {room} tokens", "{used} / {room} 个词元"),
    # a character
    "character_images": (
        "Pictures of one character: a handful, each another view of it",
        "同一个角色的几张图片，最好各不相同",
    ),
    "character_name": ("Name", "名称"),
    "character_name_hint": (
        "Of the file; in a prompt it is <lora:name:0.8>.",
        "文件的名称；在提示词里写 <lora:名称:0.8>。",
    ),
    "character_prompt": ("How it is asked for", "怎样称呼它"),
    "character_prompt_hint": (
        "A word that the model does not know, and what it is: zog the striped creature.",
        "一个模型不认识的词，加上它是什么：zog the striped creature。",
    ),
    "character_steps": ("Steps", "步数"),
    "character_steps_hint": ("More learn more closely.", "越多学得越像。"),
    "character_rank": ("Rank", "秩"),
    "character_rank_hint": ("Size of what is learned.", "学到的内容的大小。"),
    "character_own": ("suits the model", "适合模型的值"),
    "character_prior_prompt": ("What it is one of", "它属于哪一类"),
    "character_prior_prompt_hint": (
        "Prior preservation: the model's own pictures of that class are learned beside it, so that "
        "the class stays what it was. May be empty.",
        "先验保留：同时学习模型自己画的这一类图片，让这一类保持原样。可以不填。",
    ),
    "character_prior_count": ("Pictures of that class", "这一类的图片数"),
    "character_prior_count_hint": ("Drawn before training.", "训练前先画好。"),
    "character_resume": ("Go on with the run of this name", "继续同名的训练"),
    "character_resume_hint": (
        "With the same pictures and settings, from where it was stopped.",
        "图片和设置相同，从停下的地方继续。",
    ),
    "character_go": ("Train", "训练"),
    "character_idle": (
        "What the model makes of your character appears here while it learns",
        "学习过程中，这里会显示模型画出的角色",
    ),
    "character_class": ("Drawing pictures of the class", "正在画这一类的图片"),
    "character_done": ("Learned: write {tag} into a prompt", "学会了：在提示词里写 {tag}"),
    "character_stopped": (
        "Stopped at step {step}; it can go on later",
        "停在第 {step} 步，以后可以继续",
    ),
    "character_loss": ("Loss from {first:.3f} to {last:.3f}", "损失从 {first:.3f} 到 {last:.3f}"),
    "character_preview": (
        "What the model draws with what it has learned so far",
        "模型用目前学到的内容画出的图片",
    ),
    "character_files": (
        "The LoRA: in peft's names, and in those of A1111 and ComfyUI",
        "LoRA 文件：peft 命名，以及 A1111 与 ComfyUI 命名",
    ),
    "character_use": ("Use it in the prompt", "用在提示词里"),
    # how
    "settings": ("Settings", "设置"),
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
    "cfg_half": ("half of the model's own", "模型默认值的一半"),
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
    # the kernels
    "kernels_here": ("What can run on this server", "这台服务器能运行什么"),
    "kernels_here_hint": (
        "Attention and GroupNorm are where a picture's time goes. Each can run on several "
        "implementations; choose one in the settings, or let the fastest be taken.",
        "画一幅图的时间大多花在注意力和 GroupNorm 上。两者都有多种实现，可以在设置里选择，"
        "也可以自动选最快的。",
    ),
    "auto_takes": ("auto", "自动"),
    "can_run": ("Runs here", "可以运行"),
    "cannot_run": ("Not here", "不能运行"),
    "kernels_measured": ("Measured at Stable Diffusion's real shapes", "按真实形状测得的速度"),
    "kernels_measured_hint": (
        "By python -m kernels.bench: right answers first, then the median time. Longer is faster.",
        "由 python -m kernels.bench 测得：先核对结果，再取时间的中位数。越长越快。",
    ),
    "measured_on": ("Measured on", "测试设备"),
    "operation": ("Operation", "运算"),
    "bench_none": ("Nothing was measured for this here.", "这一项没有测得数据。"),
    "bench_legend": (
        "{metric}, {dtype}; the dashed line is what this device reached itself, {ceiling}. "
        "The last column is the speed against the best peer. {versions}.",
        "{metric}，{dtype}；虚线是这台设备自身达到的上限 {ceiling}。"
        "最后一列是与最快的其他实现之比。{versions}。",
    ),
    "bench_absent": ("Not measured on this device:", "在这台设备上没有测："),
    # a picture's settings, and the pictures of this browser
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
    "info_empty": ("(empty)", "（空）"),
    "info_others": ("Also written there, not used here:", "文本中还有，但这里不用："),
    "info_use": ("Use these settings", "使用这些参数"),
    "info_vary": ("Use with a new seed", "换个种子使用"),
    "info_used": ("The settings are in the form", "参数已填入"),
    "history": ("Pictures of this browser", "本浏览器的图片"),
    "history_hint": (
        "The pictures that you make gather here with their settings. They stay in this browser "
        "alone and are still here after a reload.",
        "你生成的图片和参数会留在这里，只保存在这个浏览器里，刷新后仍在。",
    ),
    "history_clear": ("Clear history", "清空历史"),
    # what came out
    "idle": ("Your picture will appear here.", "你的画会出现在这里。"),
    "ready": ("Ready", "准备就绪"),
    "pictures": ("Pictures", "图片"),
    "parameters": ("Parameters", "生成参数"),
    "parameters_hint": (
        "Everything needed to draw the picture again; it is also stored inside the PNG.",
        "重画这幅图所需的全部信息，也保存在 PNG 文件里。",
    ),
    "preview_alt": ("The picture so far", "目前的画面"),
    "waiting": ("Waiting for the device…", "正在等待设备……"),
    "starting": ("Reading the prompt…", "正在读取提示词……"),
    "step": ("Step {index} of {total}", "第 {index} / {total} 步"),
    "picture": ("Picture {image} of {count}", "第 {image} / {count} 张"),
    "seconds": ("{seconds:.1f} s", "{seconds:.1f} 秒"),
    "done": ("Done", "完成"),
    "done_many": ("{count} pictures done", "{count} 张已完成"),
    "stopped": ("Stopped at step {index} of {total}", "已停在第 {index} / {total} 步"),
    "stopped_early": ("Stopped before the first step", "开始之前已停止"),
    "error": ("That did not work", "没有成功"),
    "broken": (
        "Something went wrong on the server; its log has the details. Please try again.",
        "服务器出了问题，详情见服务器日志。请再试一次。",
    ),
    # what the model knows
    "knows": ("What this model knows", "这个模型认识什么"),
    "knows_objects": (
        "It was trained from zero on these objects and on nothing else. Choose one to use it.",
        "它从零开始学习，只见过下面这些东西。点一下就能用。",
    ),
    "knows_colours": (
        "One or two objects at a time, on a plain background of one of these colours:",
        "每次画一到两个物体，背景是下列纯色之一：",
    ),
    "knows_relations": (
        "Two objects can stand to the left of, to the right of, above or below each other.",
        "两个物体可以一左一右，或一上一下。",
    ),
    "knows_not": (
        "It does not know people, places, styles, letters, numbers, colours of objects, "
        "three or more things, or any word that is not listed here: it will draw something, "
        "but not that.",
        "它不认识人物、地点、风格、文字、数量、物体的颜色，也画不了三个以上的东西；"
        "没有列出的词，它会画点什么，但不会是你想要的。",
    ),
    "group_animals": ("Animals", "动物"),
    "group_plants": ("Plants", "植物"),
    "group_food": ("Food", "食物"),
    "group_travel": ("Travel", "旅行"),
    "group_activities": ("Activities", "活动"),
    "group_things": ("Things", "物品"),
}

COLOURS = {  # the embedded model's backgrounds: (English, Chinese, what it looks like)
    "white": ("white", "白色", "#f5f5f5"),
    "gray": ("gray", "灰色", "#96999e"),
    "black": ("black", "黑色", "#202124"),
    "red": ("red", "红色", "#d63c3c"),
    "orange": ("orange", "橙色", "#f39237"),
    "yellow": ("yellow", "黄色", "#fadb5e"),
    "green": ("green", "绿色", "#5cb062"),
    "cyan": ("cyan", "青色", "#62cdd6"),
    "blue": ("blue", "蓝色", "#4279db"),
    "purple": ("purple", "紫色", "#8858c4"),
    "pink": ("pink", "粉色", "#f6a6c4"),
    "brown": ("brown", "棕色", "#885e42"),
}

# Chinese for the one-line notes of samplers and schedules; where one is missing, English stands.
NOTES_ZH = {
    "sampler.ddpm": "最早的方法：每一步都加新噪声，需要很多步。",
    "sampler.ddim": "最早的快速方法：不加新噪声，简单、稳定。",
    "sampler.ddim_cfgpp": "引导后仍贴近真实图像的 DDIM；引导强度按 1/12.5 计。",
    "sampler.plms": "记得前四步的 DDIM，比步数多调用一次模型。",
    "sampler.euler": "沿着方向直走：朴素、稳健，适合先试。",
    "sampler.euler_a": "加新噪声的 Euler：多变、柔和，步数增加也不会定下来。",
    "sampler.heun": "先看一步再修正的 Euler：每步调用两次，准确。",
    "sampler.heunpp2": "向前看两步、但只略作参考的 Heun：每步调用三次，平滑。",
    "sampler.lms": "记得前四步的线性多步法。",
    "sampler.dpm2": "先看半步：每步调用两次，准确。",
    "sampler.dpm2_a": "加新噪声的 DPM2：多变，每步调用两次。",
    "sampler.dpmpp_2s_a": "加新噪声并先看半步的 DPM++：每步调用两次，清晰而多变。",
    "sampler.dpmpp_2m": "步数少时最好，每步只调用一次：15 到 25 步就清晰。",
    "sampler.dpmpp_2m_sde": "加新噪声的 DPM++ 2M：25 步起细节丰富。",
    "sampler.dpmpp_2m_sde_heun": "换一种方式利用前一步的 DPM++ 2M SDE：稍柔和。",
    "sampler.dpmpp_3m_sde": "记得更久的 DPM++ 2M SDE：适合 30 步以上和较低的引导。",
    "sampler.dpmpp_sde": "新噪声只取决于种子，与步数无关；每步调用两次。",
    "sampler.unipc": "不必第二次调用就能预测并修正：8 步起就不错。",
    "sampler.deis": "精确求解线性部分的多步法：10 步起就不错。",
    "sampler.lcm": "只用于潜在一致性模型和 LCM LoRA：2 到 8 步。",
    "sampler.tcd": "只用于轨迹一致性蒸馏（TCD）LoRA：2 到 8 步，细节比 LCM 多。",
    "sampler.restart": "中途退回噪声一两次来修正误差的 Heun：适合 20 步以上。",
    "schedule.automatic": "最适合这个采样器的调度。",
    "schedule.uniform": "时间步均匀，照模型自己的配置。",
    "schedule.karras": "噪声小的地方多走几步：步数少也有细节。",
    "schedule.exponential": "每一步都把噪声除以同一个数。",
    "schedule.polyexponential": "可弯曲的指数调度；按 A1111 的设定不弯，与指数调度相同。",
    "schedule.sgm_uniform": "从最后一个时间步开始的均匀步：范围完整，纯色更准。",
    "schedule.kl_optimal": "图像与噪声之间的角度均匀变化：若图像都像一团模糊，它最优。",
    "schedule.align_your_steps": "英伟达优化的噪声水平：为 10 步左右设计。",
    "schedule.simple": "从最后一个时间步开始的均匀步，取整。",
    "schedule.normal": "从最后到最前的均匀时间步：即 A1111 的 Uniform。",
    "schedule.ddim": "从第一个时间步往上均匀取步，照 DDIM 作者的做法：起点略低于最高噪声。",
    "schedule.beta": "两头多走几步：兼顾构图和细节。",
}

NOTES_ZH |= {
    "attention.triton": "本项目自己的 Triton 内核。",
    "attention.sdpa": "PyTorch 的融合注意力。",
    "attention.xformers": "xformers 的省显存注意力。",
    "attention.math": "直接的矩阵乘法，作为参照。",
    "group_norm.triton": "本项目自己的 Triton 内核，平移、归一化和 SiLU 一次完成。",
    "group_norm.torch": "PyTorch 自带的 GroupNorm。",
}

LANGUAGES = ("en", "zh")


def add(rows: dict[str, tuple[str, str]]) -> None:
    """Add one tab's texts, {key: (English, Chinese)}; a key that is there already is an error."""
    twice = rows.keys() & TEXTS.keys()
    assert not twice, twice
    TEXTS.update(rows)


@lru_cache
def notes() -> dict[str, tuple[str, str]]:
    """Rows like those of TEXTS: one for the note of each sampler, schedule and backend."""
    from pipeline.backends import KINDS
    from pipeline.samplers import SAMPLERS, SCHEDULES

    tables = {"sampler": SAMPLERS, "schedule": SCHEDULES} | {k: v.table for k, v in KINDS.items()}
    return {
        f"{kind}.{key}": (entry.note, NOTES_ZH.get(f"{kind}.{key}", entry.note))
        for kind, table in tables.items()
        for key, entry in table.items()
    }


def note(key: str, language: str) -> str:
    """One of `notes`, in the language."""
    return notes()[key][LANGUAGES.index(language)]


def translations():
    """The gr.I18n of the page, for `launch(i18n=)`; call it with a key for a component's text."""
    import gradio as gr

    rows = TEXTS | notes()
    tables = {
        language: {key: row[i] for key, row in rows.items()} for i, language in enumerate(LANGUAGES)
    }
    return gr.I18n(**tables)


def request_language(request) -> str:
    """The language that the browser asks for first, "en" where it is none of ours."""
    wanted = (request.headers.get("accept-language") or "") if request else ""
    return "zh" if wanted.strip().lower().startswith("zh") else "en"


def say(key: str, language: str, **values) -> str:
    """The text of `key` with its numbers filled in."""
    return TEXTS[key][LANGUAGES.index(language)].format(**values)
