"""SAMPLERS and SCHEDULES: the tables of all samplers and all noise schedules.

To add a sampler, add an entry here. If diffusers has no scheduler for it, also add a module to this
folder with a `make_sampler` like that of diffusers_adapter.py, and name the module in the entry. To
add a schedule, add an entry, and if diffusers does not have the schedule, a function like those of
schedules.py. The command line, the web page and its API, the grid, the race of samplers,
docs/samplers.md and the tests read these tables. Importing this module does not import torch.

Names are A1111's. The papers: DDPM arXiv 2006.11239, DDIM 2010.02502, PNDM (PLMS) 2202.09778,
EDM (Euler, Heun, Karras) 2206.00364, DPM-Solver++ 2211.01095, UniPC 2302.04867, DEIS 2204.13902,
LCM 2310.04378, TCD 2402.19159, Restart 2306.14878, CFG++ 2406.08070, SGM Uniform and zero terminal
SNR 2305.08891, Align Your Steps and KL Optimal 2404.14507, Beta 2407.12173. docs/samplers.md
measures each: the order in which it converges, or the moments of what it draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Convergence:
    """The order of convergence of a deterministic sampler, and how convergence.py measures it.

    order      p, if the error is proportional to steps ** -p
    source     why it has this order: the rule or the paper
    schedule   key of the schedule that it is measured with
    counts     the numbers of steps that it is measured with
    tolerance  largest difference of the measured order from `order` that the tests accept
    """

    order: float
    source: str
    schedule: str = "exponential"
    counts: tuple[int, ...] = (15, 20, 30, 40, 60, 80, 120)
    tolerance: float = 0.15


@dataclass(frozen=True)
class Sampler:
    """One sampler, a value of the dict SAMPLERS: its name, its implementation and its properties.

    label           its name in A1111's spelling
    note, note_zh   what it is good for, in English and Chinese, as shown to users
    scheduler       name of the diffusers class that runs it, or that only supplies the noise levels
                    if `file` names another module than diffusers_adapter
    flags           arguments of that class that override the checkpoint's scheduler configuration
    takes           keys of the schedules that it accepts, "automatic" included; None means all
    automatic       key of the schedule that "automatic" stands for
    calls           model calls per step; the last steps may make fewer, and PLMS, which makes one,
                    makes two at its first step
    needs           names of packages that must be installed in addition
    aliases         other names that it can be selected by
    file            name of the module in this folder whose `make_sampler` builds it
    fresh_noise     whether it adds random noise during sampling
    other_guidance  whether it uses another guidance formula than classifier-free guidance
    distilled       whether it is made for distilled models; then more steps do not make it exact
    convergence     the measured order of convergence; None for samplers that have none
    moment_steps    for a sampler that adds noise: the number of steps with which convergence.py
                    compares the moments of its samples with those of the data; None: not compared
    """

    label: str
    note: str
    note_zh: str
    scheduler: str
    flags: Mapping[str, object] = field(default_factory=dict)
    takes: tuple[str, ...] | None = None
    automatic: str = "uniform"
    calls: int = 1
    needs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    file: str = "diffusers_adapter"
    fresh_noise: bool = False
    other_guidance: bool = False
    distilled: bool = False
    convergence: Convergence | None = None
    moment_steps: int | None = None

    @property
    def schedules(self) -> tuple[str, ...]:
        """The keys of all schedules that this sampler accepts, "automatic" included."""
        return tuple(SCHEDULES) if self.takes is None else self.takes


@dataclass(frozen=True)
class Schedule:
    """One noise schedule, a value of the dict SCHEDULES.

    label          its name in A1111's spelling
    note, note_zh  what it is good for, in English and Chinese, as shown to users
    flags          arguments of diffusers' schedulers that select it
    formula        name of the function that returns its noise levels; None if diffusers has it
    file           name of the module in this folder that defines `formula`
    needs          names of packages that must be installed in addition
    """

    label: str
    note: str
    note_zh: str
    flags: Mapping[str, object] = field(default_factory=dict)
    formula: str | None = None
    file: str = "schedules"
    needs: tuple[str, ...] = ()


def _sigmas(kind: str | None, spacing: str) -> dict[str, object]:
    flags = {f"use_{name}_sigmas": name == kind for name in ("karras", "exponential", "beta")}
    return flags | {"use_lu_lambdas": False, "timestep_spacing": spacing}


# Schedules with a formula set Karras's flag, because diffusers_adapter puts their noise levels in
# the place of Karras's. With "linspace" the noise levels cover the model's whole range, as in
# k-diffusion; with the checkpoint's "leading" or "trailing" some of diffusers' classes shorten it.
SCHEDULES: dict[str, Schedule] = {
    "automatic": Schedule(
        "Automatic",
        "What suits the sampler best.",
        "最适合这个采样器的调度。",
    ),
    "uniform": Schedule(
        "Uniform",
        "Even timesteps, as the checkpoint's own configuration says.",
        "时间步均匀，照模型自己的配置。",
    ),
    "karras": Schedule(
        "Karras",
        "More steps where there is little noise: fine detail with few steps.",
        "噪声小的地方多走几步：步数少也有细节。",
        _sigmas("karras", "linspace"),
    ),
    "exponential": Schedule(
        "Exponential",
        "Every step divides the noise by the same factor.",
        "每一步都把噪声除以同一个数。",
        _sigmas("exponential", "linspace"),
    ),
    "polyexponential": Schedule(
        "Polyexponential",
        "Exponential with a bend that A1111 leaves straight: the same noise levels.",
        "可弯曲的指数调度；按 A1111 的设定不弯，与指数调度相同。",
        _sigmas("karras", "linspace"),
        formula="polyexponential",
    ),
    "sgm_uniform": Schedule(
        "SGM Uniform",
        "Even timesteps that start at the very last one: whole range, flat colours.",
        "从最后一个时间步开始的均匀步：范围完整，纯色更准。",
        _sigmas(None, "trailing"),
    ),
    "kl_optimal": Schedule(
        "KL Optimal",
        "Even steps in the angle between picture and noise: best if all pictures were one blur.",
        "图像与噪声之间的角度均匀变化：若图像都像一团模糊，它最优。",
        _sigmas("karras", "linspace"),
        formula="kl_optimal",
    ),
    "align_your_steps": Schedule(
        "Align Your Steps",
        "NVIDIA's optimised noise levels: made for about 10 steps.",
        "英伟达优化的噪声水平：为 10 步左右设计。",
        _sigmas("karras", "linspace"),
        formula="align_your_steps",
    ),
    "simple": Schedule(
        "Simple",
        "Even timesteps from the very last one, cut off to whole ones.",
        "从最后一个时间步开始的均匀步，取整。",
        _sigmas("karras", "linspace"),
        formula="simple",
    ),
    "normal": Schedule(
        "Normal",
        "Even timesteps from the very last one to the very first: A1111's Uniform.",
        "从最后到最前的均匀时间步：即 A1111 的 Uniform。",
        _sigmas("karras", "linspace"),
        formula="normal",
    ),
    "ddim": Schedule(
        "DDIM",
        "Even timesteps from the first one up, as DDIM's authors took them: starts below the top.",
        "从第一个时间步往上均匀取步，照 DDIM 作者的做法：起点略低于最高噪声。",
        _sigmas("karras", "linspace"),
        formula="ddim",
    ),
    "beta": Schedule(
        "Beta",
        "More steps at both ends: composition and detail.",
        "两头多走几步：兼顾构图和细节。",
        _sigmas("beta", "linspace"),
        needs=("scipy",),
    ),
}

SPACED = ("automatic", "uniform", "sgm_uniform")  # for samplers that know only trained timesteps
FIXED = ("automatic", "uniform")  # for samplers that choose their timesteps themselves
NO_CLIP = {"clip_sample": False}  # latents are not pixels: they may lie outside of [-1, 1]
DPMPP_2M = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}

TIMED: dict[str, Any] = {"schedule": "uniform", "counts": (10, 20, 40, 50, 100, 200)}

SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(
        "DDPM",
        "The first one: fresh noise at every step; wants many steps.",
        "最早的方法：每一步都加新噪声，需要很多步。",
        "DDPMScheduler",
        flags=NO_CLIP,
        takes=SPACED,
        fresh_noise=True,
        moment_steps=500,
    ),
    "ddim": Sampler(
        "DDIM",
        "The first fast one: no fresh noise, simple and predictable.",
        "最早的快速方法：不加新噪声，简单、稳定。",
        "DDIMScheduler",
        flags=NO_CLIP,
        takes=SPACED,
        convergence=Convergence(1, "Euler's rule in sigma, 2010.02502 eq. 14", **TIMED),
    ),
    "ddim_cfgpp": Sampler(
        "DDIM CFG++",
        "DDIM whose guidance stays closer to real pictures; the scale means 1/12.5 of itself.",
        "引导后仍贴近真实图像的 DDIM；引导强度按 1/12.5 计。",
        "DDIMScheduler",
        flags=NO_CLIP,
        takes=SPACED,
        file="ddim_cfgpp",
        other_guidance=True,
        convergence=Convergence(1, "without guidance it is DDIM", **TIMED),
    ),
    "plms": Sampler(
        "PLMS",
        "DDIM with a memory of four steps; one model call more than steps.",
        "记得前四步的 DDIM，比步数多调用一次模型。",
        "PNDMScheduler",
        flags={"skip_prk_steps": True, "prediction_type": "epsilon"},
        takes=SPACED,
        aliases=("PNDM",),
        convergence=Convergence(
            2, "2202.09778: pseudo numerical methods are of second order", **TIMED
        ),
    ),
    "euler": Sampler(
        "Euler",
        "Straight steps along the flow: plain, robust, a good first choice.",
        "沿着方向直走：朴素、稳健，适合先试。",
        "EulerDiscreteScheduler",
        convergence=Convergence(1, "Euler's rule"),
    ),
    "euler_a": Sampler(
        "Euler a",
        "Euler with fresh noise: varied, soft, never settles as steps grow.",
        "加新噪声的 Euler：多变、柔和，步数增加也不会定下来。",
        "EulerAncestralDiscreteScheduler",
        aliases=("Euler ancestral",),
        fresh_noise=True,
        moment_steps=400,
    ),
    "heun": Sampler(
        "Heun",
        "Euler that looks ahead and corrects itself: two calls a step, accurate.",
        "先看一步再修正的 Euler：每步调用两次，准确。",
        "HeunDiscreteScheduler",
        calls=2,
        convergence=Convergence(2, "Heun's rule, 2206.00364 algorithm 1"),
    ),
    "heunpp2": Sampler(
        "HeunPP2",
        "Heun that looks two steps ahead and trusts it little: three calls a step, smooth.",
        "向前看两步、但只略作参考的 Heun：每步调用三次，平滑。",
        "EulerDiscreteScheduler",
        calls=3,
        file="heunpp2",
        convergence=Convergence(1, "its weights tend to Euler's as the steps shrink"),
    ),
    "lms": Sampler(
        "LMS",
        "A straight multistep method with a memory of four steps.",
        "记得前四步的线性多步法。",
        "LMSDiscreteScheduler",
        needs=("scipy",),
        convergence=Convergence(
            4, "Adams-Bashforth over four slopes; the first three steps have fewer", tolerance=1.0
        ),
    ),
    "dpm2": Sampler(
        "DPM2",
        "Looks half a step ahead: two calls a step, accurate.",
        "先看半步：每步调用两次，准确。",
        "KDPM2DiscreteScheduler",
        automatic="karras",
        calls=2,
        convergence=Convergence(2, "midpoint rule in log sigma, 2206.00927 (DPM-Solver-2)"),
    ),
    "dpm2_a": Sampler(
        "DPM2 a",
        "DPM2 with fresh noise: varied; two calls a step.",
        "加新噪声的 DPM2：多变，每步调用两次。",
        "KDPM2AncestralDiscreteScheduler",
        automatic="karras",
        calls=2,
        aliases=("DPM2 ancestral",),
        fresh_noise=True,
        moment_steps=100,
    ),
    "dpmpp_2s_a": Sampler(
        "DPM++ 2S a",
        "DPM++ with fresh noise and a look half a step ahead: two calls a step, crisp and varied.",
        "加新噪声并先看半步的 DPM++：每步调用两次，清晰而多变。",
        "EulerDiscreteScheduler",
        automatic="karras",
        calls=2,
        aliases=("DPM++ 2S ancestral",),
        file="dpmpp_2s_a",
        fresh_noise=True,
        moment_steps=100,
    ),
    "dpmpp_2m": Sampler(
        "DPM++ 2M",
        "The best for few steps at one call each: sharp by 15 to 25 steps.",
        "步数少时最好，每步只调用一次：15 到 25 步就清晰。",
        "DPMSolverMultistepScheduler",
        flags=DPMPP_2M,
        automatic="karras",
        convergence=Convergence(2, "2211.01095, two answers"),
    ),
    "dpmpp_2m_sde": Sampler(
        "DPM++ 2M SDE",
        "DPM++ 2M with fresh noise: rich detail from 25 steps on.",
        "加新噪声的 DPM++ 2M：25 步起细节丰富。",
        "DPMSolverMultistepScheduler",
        flags=DPMPP_2M | {"algorithm_type": "sde-dpmsolver++"},
        automatic="exponential",
        fresh_noise=True,
        moment_steps=100,
    ),
    "dpmpp_2m_sde_heun": Sampler(
        "DPM++ 2M SDE Heun",
        "DPM++ 2M SDE with another weight on its memory: a little softer.",
        "换一种方式利用前一步的 DPM++ 2M SDE：稍柔和。",
        "DPMSolverMultistepScheduler",
        flags=DPMPP_2M | {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        automatic="exponential",
        fresh_noise=True,
        moment_steps=100,
    ),
    "dpmpp_3m_sde": Sampler(
        "DPM++ 3M SDE",
        "DPM++ 2M SDE with a longer memory: for 30 steps and more, and lower guidance.",
        "记得更久的 DPM++ 2M SDE：适合 30 步以上和较低的引导。",
        "EulerDiscreteScheduler",
        automatic="exponential",
        file="dpmpp_3m_sde",
        fresh_noise=True,
        moment_steps=100,
    ),
    "dpmpp_sde": Sampler(
        "DPM++ SDE",
        "Fresh noise that depends on the seed alone, not on the steps; two calls a step.",
        "新噪声只取决于种子，与步数无关；每步调用两次。",
        "DPMSolverSDEScheduler",
        automatic="karras",
        calls=2,
        needs=("torchsde", "scipy"),
        fresh_noise=True,
        moment_steps=50,
    ),
    "unipc": Sampler(
        "UniPC",
        "Predicts and corrects without a second call: good from 8 steps on.",
        "不必第二次调用就能预测并修正：8 步起就不错。",
        "UniPCMultistepScheduler",
        convergence=Convergence(
            3, "2302.04867: the corrector adds one to the order 2 of the predictor"
        ),
    ),
    "deis": Sampler(
        "DEIS",
        "A multistep method that solves the linear part exactly: good from 10 steps on.",
        "精确求解线性部分的多步法：10 步起就不错。",
        "DEISMultistepScheduler",
        convergence=Convergence(2, "2204.13902, two slopes"),
    ),
    "lcm": Sampler(
        "LCM",
        "For latent consistency models and LCM LoRAs only: 2 to 8 steps.",
        "只用于潜在一致性模型和 LCM LoRA：2 到 8 步。",
        "LCMScheduler",
        flags=NO_CLIP,
        takes=FIXED,
        fresh_noise=True,
        distilled=True,
    ),
    "tcd": Sampler(
        "TCD",
        "For trajectory consistency distillation LoRAs only: 2 to 8 steps, more detail than LCM.",
        "只用于轨迹一致性蒸馏（TCD）LoRA：2 到 8 步，细节比 LCM 多。",
        "TCDScheduler",
        flags=NO_CLIP,
        takes=FIXED,
        fresh_noise=True,
        distilled=True,
    ),
    "restart": Sampler(
        "Restart",
        "Heun that goes back into the noise once or twice to mend errors: from 20 steps on.",
        "中途退回噪声一两次来修正误差的 Heun：适合 20 步以上。",
        "EulerDiscreteScheduler",
        automatic="karras",
        calls=2,
        file="restart",
        fresh_noise=True,
        moment_steps=100,
        convergence=Convergence(
            2,
            "Heun's below 20 steps, where nothing restarts",
            counts=(9, 12, 15, 19),
            tolerance=0.45,
        ),
    ),
}
