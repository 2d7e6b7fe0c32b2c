"""Texts of the tab Arena in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    # who races
    "arena_lanes": ("Lanes", "赛道"),
    "arena_lanes_hint": (
        "Two to six samplers. Type karras to find those with that noise schedule; without one, "
        "each takes what suits it.",
        "二到六个采样器。输入 karras 可以找到使用该噪声调度的；不写调度时各用最适合自己的。",
    ),
    "arena_go": ("Race", "开始比赛"),
    "arena_backends": ("Race the backends", "比较计算后端"),
    "arena_backends_hint": (
        "The same picture on every attention and GroupNorm that can run on this server.",
        "用这台服务器能运行的每种注意力和 GroupNorm 画同一幅图。",
    ),
    "arena_idle": (
        "Samplers race here: one prompt, one seed, a model call each in turn.",
        "采样器在这里比赛：同一提示词、同一种子，轮流各调用一次模型。",
    ),
    "arena_files": (
        "The pictures, PNG files that hold their parameters",
        "图片：PNG 文件，内含生成参数",
    ),
    # while it runs
    "arena_on": ("Racing: {calls} model calls so far", "比赛中：已调用模型 {calls} 次"),
    "arena_reference_on": (
        "All have finished; now the reference: step {index} of {total}",
        "全部到达终点，正在画参照：第 {index} / {total} 步",
    ),
    "arena_done": ("Finished after {calls} model calls", "比赛结束，共调用模型 {calls} 次"),
    "arena_stopped": ("Stopped", "已停止"),
    "arena_step": ("Step {index} / {total}", "第 {index} / {total} 步"),
    "arena_calls": ("{calls} calls", "{calls} 次调用"),
    "arena_far": ("distance {far}", "距离 {far}"),
    "arena_known": ("known from before", "之前已画好"),
    "arena_reference": ("Reference: {name}", "参照：{name}"),
    "arena_alt": ("The picture of {name} so far", "{name} 目前的画面"),
    # the curves
    "arena_sigma": ("Noise that is left, sigma", "剩余噪声 sigma"),
    "arena_sigma_alt": ("Noise level over steps: {names}", "噪声水平随步数的变化：{names}"),
    "arena_far_title": ("Distance to the reference", "与参照的距离"),
    "arena_far_alt": (
        "Distance to the reference over model calls: {names}",
        "与参照的距离随模型调用次数的变化：{names}",
    ),
    "arena_far_later": ("drawn when the reference is known", "画好参照后显示"),
    # the tables
    "arena_head_calls": ("Model calls", "模型调用"),
    "arena_head_time": ("Time", "用时"),
    "arena_head_far": ("Distance at the end", "最终距离"),
    "arena_elsewhere_mark": ("ends elsewhere by design", "本就通向别处"),
    "arena_head_step": ("Time per step", "每步用时"),
    "arena_head_speed": ("Speed", "速度"),
    "arena_head_pixels": ("Largest pixel difference", "最大像素差"),
    "arena_head_latents": ("Largest latent difference", "最大潜变量差"),
    "arena_of_255": ("{pixels} of 255", "{pixels}（满值 255）"),
    "arena_base": ("compared with this", "以此为准"),
    "arena_absent": ("Not in the race on this server:", "在这台服务器上不参赛："),
    # what it all means
    "arena_about": (
        "All lanes start from the same noise and make one model call each in turn. The "
        "reference is {name} with {steps} steps: no fresh noise, so close to where the exact "
        "equation leads. Distance is the root mean square between the clean picture that a lane "
        "believes in, as latents, and the reference's last latents, in units of the reference's "
        "own deviation: 0 is the same picture, about 1.4 one that has nothing to do with it. "
        "The first race of a prompt and seed draws the reference last; the next ones know it. "
        "Time is that of the steps; the first also reads the prompt.",
        "所有赛道从同一份噪声出发，轮流各调用一次模型。参照是 {steps} 步的 {name}：不加新噪声，"
        "因此接近方程的精确解。距离是赛道当前认为的干净潜变量与参照最终潜变量之差的均方根，"
        "以参照自身的标准差为单位：0 是同一幅图，约 1.4 是毫不相干的图。"
        "同一提示词和种子的第一场比赛最后才画参照，之后直接沿用。用时是各步之和，第一步还包括读取提示词。",
    ),
    "arena_backends_about": (
        "Each makes one step in turn, so that a busy machine slows all alike; the time is the "
        "median, the first step aside, which may build kernels. Differences are those of the "
        "finished picture and of its latents against {base}, the plain one.",
        "各后端轮流各走一步，机器忙时大家同样变慢；用时取中位数，不计可能要编译内核的第一步。"
        "差异是最终图片和潜变量与最朴素的 {base} 之差。",
    ),
    "arena_elsewhere": (
        "These add fresh noise and end at another picture by design, so they need not come near "
        "the reference: {fresh}. {other} guides in another way and does not either.",
        "下列采样器会加新噪声，本来就通向另一幅图，不必接近参照：{fresh}。"
        "{other} 的引导方式不同，也是如此。",
    ),
}
