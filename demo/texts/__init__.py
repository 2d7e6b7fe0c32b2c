"""The page's words in English and Chinese, one row a key.

Labels, hints and buttons go through gr.I18n, which follows the browser's language. Sentences that
carry numbers are made on the server by `say`, in the language that the browser asks for.
"""

from __future__ import annotations

from functools import lru_cache

from .vocabulary import COLOURS, VOCABULARY
from .workspace import WORKSPACE

__all__ = ["COLOURS", "LANGUAGES", "TEXTS", "add", "note", "notes", "request_language", "say"]

TEXTS: dict[str, tuple[str, str]] = {**WORKSPACE, **VOCABULARY}  # key: (English, Chinese)

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
