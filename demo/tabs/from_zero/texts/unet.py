"""Texts of chapter iii, the UNet and training, in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    "zero_u_title": ("The UNet: the one that sees through noise", "UNet：看穿噪声的网络"),
    "zero_u_shape": (
        "At every step one network is asked the same question: here are noisy latents, here is "
        "how noisy, here are the words; what is the noise in it? It first makes the latents "
        "smaller and deeper, so that few places know much about the whole, and then larger again. "
        "Drawn on paper this looks like a U.",
        "每一步都问同一个网络同一个问题：这是带噪的潜变量，这是噪声的程度，这是文字，里面的噪声是什么？"
        "它先把潜变量变小、变深，让少数位置了解全局，再变大回来。画在纸上像一个 U。",
    ),
    "zero_u_try": (
        "Draw a picture and look into your own run: every block shows the shape that it gave and "
        "where it was active. Drag through the steps afterwards. The size is the one of the "
        "settings in Generate.",
        "画一幅图，看看你自己这一次的运行：每个模块都显示它输出的形状，以及哪里活跃。"
        "画完后可以拖动查看每一步。尺寸取自“生成”里的设置。",
    ),
    "zero_u_draw": ("Draw and look inside", "边画边看"),
    "zero_u_step": ("Step", "步"),
    "zero_u_size": (
        "This UNet has {count:,} parameters. Shapes are channels × height × width.",
        "这个 UNet 有 {count:,} 个参数。形状为 通道 × 高 × 宽。",
    ),
    "zero_u_latents": ("in: the noisy latents", "输入：带噪的潜变量"),
    "zero_u_picture": ("the picture it believes in", "它相信的画面"),
    "zero_u_skips": ("{count} across →", "跨接 {count} 份 →"),
    "zero_u_waves": ("{count} sines and cosines of t", "t 的 {count} 个正弦和余弦"),
    "zero_u_time": ("{count} numbers after two linear layers", "经过两个线性层：{count} 个数"),
    "zero_u_hears_time": ("+ time", "+ 时间"),
    "zero_u_hears_words": (
        "words: Q {places} × {wide}, K and V {keys} × {wide}",
        "文字：Q {places} × {wide}，K、V {keys} × {wide}",
    ),
    "zero_u_active": ("Where {name} is active", "{name} 哪里活跃"),
    "zero_enter_title": ("How time and words enter", "时间和文字怎样进入"),
    "zero_enter_time": (
        "Time: the number t becomes sines and cosines of many speeds, like the hands of many "
        "clocks, so that near times look alike and far ones do not. Two linear layers make a "
        "vector of them, which is added to every channel in every block.",
        "时间：数字 t 先变成许多快慢不同的正弦和余弦，像许多钟的指针：相近的时间相似，"
        "相远的不相似。两个线性层把它们变成一个向量，加到每个模块的每个通道上。",
    ),
    "zero_enter_words": (
        "Words: by cross attention. Every place of the picture asks a question, its query Q. Every "
        "token of the context offers a key K, to be compared with, and a value V, what it has to "
        "say. Where query and key agree, the value flows into the place. So the apple's places "
        "listen to “apple”.",
        "文字：靠交叉注意力。画面的每个位置提出一个问题，即查询 Q；"
        "上下文的每个词元给出一个键 K 供比较，以及一个值 V，即它要说的内容。"
        "查询与键相合，值就流进这个位置。于是苹果所在的位置会听“苹果”这个词。",
    ),
    "zero_enter_skip": (
        "Across: what the left side saw at each size is handed to the right side, so that fine "
        "lines are not lost on the way down.",
        "跨接：左边在每种尺寸上看到的东西直接交给右边，细节就不会在变小的路上丢失。",
    ),
    "zero_train_title": ("How it learns: watch one", "它怎样学习：现场看一个"),
    "zero_train_game": (
        "The whole training is one game: take a picture, mix in noise at a random t, let the "
        "network guess, and turn its parameters a little so that the next guess is less wrong. How "
        "wrong it is, is the loss. Nobody explains what a triangle is.",
        "训练就是一个游戏：取一张图，按随机的 t 混入噪声，让网络猜，"
        "再把参数稍微调一调，让下一次错得少些。"
        "错多少，就是损失。没有人解释什么是三角形。",
    ),
    "zero_train_tiny": (
        "Here a tiny one starts from random parameters: 16×16 pixels, about a hundred thousand "
        "parameters, four shapes made by program, one minute on one thread. It is told which shape "
        "to draw, and its samples are drawn from the same noise each time.",
        "这里有一个很小的网络从随机参数开始：16×16 像素，约十万个参数，四种由程序画出的形状，"
        "用一个线程学一分钟。它会被告知要画哪种形状，每次都从同样的噪声开始画。",
    ),
    "zero_train": ("Train it now", "现在训练"),
    "zero_train_busy": (
        "Somebody else is training just now; it takes a minute, then it is your turn.",
        "现在有别人正在训练，大约一分钟，然后就轮到你。",
    ),
    "zero_train_running": ("{step:,} steps", "已学 {step:,} 步"),
    "zero_train_done": ("Done: {step:,} steps", "完成：共 {step:,} 步"),
    "zero_train_stopped": ("Stopped after {step:,} steps", "已停止：学了 {step:,} 步"),
    "zero_train_first": (
        "Before: distance to the data {distance:.4f}",
        "训练前：与数据的距离 {distance:.4f}",
    ),
    "zero_train_now": (
        "Now: distance to the data {distance:.4f}",
        "现在：与数据的距离 {distance:.4f}",
    ),
    "zero_train_shapes": ("disc|square|triangle|ring", "圆|方|三角|圆环"),
}
