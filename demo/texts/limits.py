"""Texts that say why a request is more than the server's limits allow, and what would fit."""

LIMITS = {  # key: (English, Chinese)
    "or": (" or ", "，或"),
    "again": ("Try again", "再试一次"),
    # before it waits
    "queue_full": (
        "The server's line is full: {count} requests wait already. Please try again in a moment.",
        "服务器的队列已满，已有 {count} 个请求在等待，请稍后再试。",
    ),
    "queue_visit": (
        "{count} of your requests wait or run already, as many as one visitor may have here. Please"
        " try again when one of them is done.",
        "你已有 {count} 个请求在等待或运行，这是每位访客的上限，请等其中一个完成后再试。",
    ),
    "queue_address": (
        "{count} requests from your network address wait or run already, as many as one address may"
        " have here. Please try again in a moment.",
        "来自你的网络地址的请求已有 {count} 个在等待或运行，这是每个地址的上限，请稍后再试。",
    ),
    "queue_lost": (
        "The request did not reach the server. Please try again.",
        "请求没有到达服务器，请再试一次。",
    ),
    # before it draws
    "too_much": (
        "This request is too large for this server: it draws {work} million pixels times model"
        " calls, and at most {limit} are allowed.",
        "这个请求对本服务器来说太大：像素数乘以模型调用次数为 {work} 百万，上限为 {limit} 百万。",
    ),
    "too_much_fits": (
        "This request is too large for this server: it draws {work} million pixels times model"
        " calls, and at most {limit} are allowed. It would fit with {fits}.",
        "这个请求对本服务器来说太大：像素数乘以模型调用次数为 {work} 百万，上限为 {limit} 百万。"
        "改为{fits}就可以。",
    ),
    "fits_count": ("a count of {value}", "{value} 张"),
    "fits_steps": ("{value} steps", "{value} 步"),
    "fits_size": ("{width}x{height} pixels", "{width}x{height} 像素"),
    "fits_scale": ("a scale of {value}", "放大 {value} 倍"),
    # while it draws
    "too_long": (
        "The request was ended after {seconds} s, as long as one may take on this server. Fewer"
        " steps, fewer pictures or a smaller size would fit.",
        "请求已在 {seconds} 秒后结束，这是本服务器对单个请求的时间上限。请减少步数、张数或尺寸。",
    ),
}
