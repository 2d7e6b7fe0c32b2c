"""Texts of the tab Kernels in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    "kernels_here": ("What can run on this server", "这台服务器能运行什么"),
    "kernels_here_hint": (
        "Attention and GroupNorm are where a picture's time goes. Each can run on several "
        "implementations; choose one in the settings, or let the fastest be taken.",
        "画一幅图的时间大多花在注意力和 GroupNorm 上。两者都有多种实现，可以在设置里选择，"
        "也可以自动选最快的。",
    ),
    "kernels_measured": ("Measured at Stable Diffusion's real shapes", "按真实形状测得的速度"),
    "kernels_measured_hint": (
        "By python -m kernels.bench: right answers first, then the median time. Longer is faster.",
        "由 python -m kernels.bench 测得：先核对结果，再取时间的中位数。越长越快。",
    ),
    "measured_on": ("Measured on", "测试设备"),
    "operation": ("Operation", "运算"),
    "bench_none": ("Nothing was measured for this here.", "这一项没有测得数据。"),
    "bench_legend": (
        "The numbers are {metric} in {dtype}, the share of the most that this device reached "
        "({ceiling}; left out on narrow screens), and the speed against the fastest other. "
        "{versions}.",
        "数字依次是 {dtype} 的 {metric}、占这台设备自身所达上限 {ceiling} 的比例（窄屏不显示），"
        "以及与最快的其他实现之比。{versions}。",
    ),
    "bench_ours": (
        "Ours is {mean}× as fast as the fastest other timed there (geometric mean of {count} "
        "shapes, {least}× to {most}×).",
        "本项目内核的速度是所测的其他实现中最快者的 {mean} 倍"
        "（{count} 种形状的几何平均，{least} 到 {most} 倍）。",
    ),
    "bench_graph": (
        "Timed by replays of a CUDA graph, without the host's time per call.",
        "以重放 CUDA graph 计时，不含主机每次调用的时间。",
    ),
    "bench_events": (
        "Timed by CUDA events around each call.",
        "以每次调用前后的 CUDA 事件计时。",
    ),
    "bench_absent": ("Not measured on this device:", "在这台设备上没有测："),
}
