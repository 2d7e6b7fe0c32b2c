"""Texts of the tab Character in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    "character_images": (
        "Pictures of one character: a handful, each another view of it",
        "同一个角色的几张图片，最好各不相同",
    ),
    "character_off": (
        "This server does not train, as anybody can reach it: train on a machine of your own, or "
        "ask its owner to start it with --allow-training.",
        "任何人都能访问这台服务器，所以它不提供训练：请在自己的电脑上训练，"
        "或请所有者用 --allow-training 启动它。",
    ),
    "character_zero_gpu": (
        "This server has a GPU for seconds at a time only; train on a machine of your own.",
        "这台服务器每次只能用几秒钟 GPU；请在自己的电脑上训练。",
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
    "character_preview": (
        "What the model draws with what it has learned so far",
        "模型用目前学到的内容画出的图片",
    ),
    "character_files": (
        "The LoRA: in peft's names, and in those of A1111 and ComfyUI",
        "LoRA 文件：peft 命名，以及 A1111 与 ComfyUI 命名",
    ),
    "character_use": ("Use it in the prompt", "用在提示词里"),
}
