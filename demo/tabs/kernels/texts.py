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
        "{metric}, {dtype}; the dashed line is what this device reached itself, {ceiling}. "
        "The last column is the speed against the best peer. {versions}.",
        "{metric}，{dtype}；虚线是这台设备自身达到的上限 {ceiling}。"
        "最后一列是与最快的其他实现之比。{versions}。",
    ),
    "bench_absent": ("Not measured on this device:", "在这台设备上没有测："),
}
