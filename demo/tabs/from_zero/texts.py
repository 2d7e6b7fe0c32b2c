"""Texts of the tab "From zero" and its chapters i to iii in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    "zero_lead": (
        "How Stable Diffusion works, in five short chapters. Nothing here is a drawing of the "
        "idea: every number and every picture is computed now, by the model that is loaded.",
        "用五个小章节讲清 Stable Diffusion 是怎样工作的。这里没有示意图："
        "每个数、每幅图都由载入的模型当场算出。",
    ),
    "zero_latents_title": ("Latents and noise", "潜变量与噪声"),
    "zero_words_title": ("Words", "文字"),
    "zero_unet_title": ("UNet and training", "UNet 与训练"),
    "zero_places": ("Where it stands in this repository", "代码在本仓库的位置"),
    "zero_working": ("Working…", "正在计算……"),
    # i: latents and noise
    "zero_latents_head_title": ("A picture as few numbers", "用很少的数表示一幅图"),
    "zero_latents_numbers": (
        "To a computer a picture is three numbers for every pixel: red, green, blue. Most of them "
        "say little, for neighbours are alike. An autoencoder is a pair of networks that learned "
        "to keep what matters: the encoder presses a picture into a small block of numbers, the "
        "latents, and the decoder makes a picture of them again.",
        "在计算机眼里，图片就是每个像素三个数：红、绿、蓝。相邻像素很像，所以大多数数没有多少信息。"
        "自动编码器是一对学会取舍的网络：编码器把图片压成一小块数，叫作潜变量；"
        "解码器再把它们变回图片。",
    ),
    "zero_latents_small": (
        "Stable Diffusion never draws pixels. It draws latents, and the decoder paints at the end. "
        "That is why it fits on an ordinary computer. Try it: give a picture of your own, or let "
        "the model draw one.",
        "Stable Diffusion 从不直接画像素：它画潜变量，最后由解码器上色成图。"
        "所以普通电脑也跑得动。试一试：放入你自己的图片，或让模型画一幅。",
    ),
    "zero_own_picture": ("Your own picture", "你自己的图片"),
    "zero_draw_prompt": ("Or a sentence to draw", "或者写一句话来画"),
    "zero_draw": ("Draw one", "画一幅"),
    "zero_channel": ("Channel {number} of the latents", "潜变量的第 {number} 个通道"),
    "zero_before": (
        "Picture: 3 × {height} × {width} = {count:,}",
        "图片：3 × {height} × {width} = {count:,}",
    ),
    "zero_middle": (
        "Latents: {c} × {h} × {w} = {count:,}. Each channel is shown in grey, with its smallest "
        "and its largest number.",
        "潜变量：{c} × {h} × {w} = {count:,}。每个通道以灰度显示，下面是其最小值和最大值。",
    ),
    "zero_after": (
        "Decoded: off by {error:.1f} of 255 on average",
        "解码后：平均相差 {error:.1f}（满值 255）",
    ),
    "zero_counted": (
        "{pixels:,} numbers became {numbers:,}: {times:.0f} times fewer. At {side}×{side}, the "
        "size of Stable Diffusion 1, {famous_pixels:,} become {famous_numbers:,}: "
        "{famous_times:.0f} times fewer.",
        "{pixels:,} 个数变成了 {numbers:,} 个，只有原来的 1/{times:.0f}。"
        "在 Stable Diffusion 1 的 {side}×{side} 下，{famous_pixels:,} 个变成 "
        "{famous_numbers:,} 个，只有 1/{famous_times:.0f}。",
    ),
    "zero_noise_title": ("Noise, a little at a time", "一点一点加噪声"),
    "zero_noise_spoiled": (
        "Diffusion models learn from pictures that were spoiled on purpose. The timestep t says "
        "how much: at t = 0 hardly at all, at the last one nothing of the picture is left to see.",
        "扩散模型从故意弄坏的图片中学习。时间步 t 表示弄坏的程度：t = 0 时几乎没变，"
        "到最后一个 t，图片已经完全看不出来。",
    ),
    "zero_noise_drag": (
        "Drag t. The noisy latents x_t are a mixture of the clean latents x_0 and of noise ε, "
        "plain random numbers. Their two shares come from a fixed table of the model, and "
        "their squares always add up to one, so the numbers stay of one size.",
        "拖动 t。带噪的潜变量 x_t 是干净的潜变量 x_0 与噪声 ε（普通的随机数）的混合。"
        "两个系数来自模型的一张固定的表，它们的平方和总是 1，所以数的大小保持不变。",
    ),
    "zero_noise_back": (
        "To draw is to go the other way: from noise at the last t, back to a picture at t = 0. For "
        "that, someone must say which part is noise. That is the UNet, in chapter three.",
        "画图就是反着走：从最后一个 t 的噪声，一步步回到 t = 0 的图片。"
        "为此要有人指出哪一部分是噪声，这就是第三章的 UNet。",
    ),
    "zero_clean": ("the latents, decoded", "潜变量（解码后）"),
    "zero_pure": ("noise alone", "纯噪声"),
    "zero_mixed": ("what the UNet is given", "UNet 看到的"),
    "zero_drag": ("Timestep", "时间步"),
    "zero_curves": (
        "Share of the picture (falling) and of noise (rising) over t",
        "随 t 变化：图片的系数（下降）与噪声的系数（上升）",
    ),
    "zero_quick": (
        "On this processor the pictures are quick previews of the latents.",
        "在这个处理器上，图片是潜变量的快速预览。",
    ),
    # ii: words
    "zero_towers_title": ("Two towers that agree", "意见一致的两座塔"),
    "zero_towers_two": (
        "A network computes with numbers, so a sentence must become some. CLIP is two networks "
        "side by side. The text tower turns a sentence into one vector, a list of numbers of "
        "length one; the image tower does the same with a picture. They were trained together on "
        "pictures and their captions, until what belongs together points the same way.",
        "网络只会计算数，所以句子也要变成数。CLIP 由两个网络并排组成：文本塔把一句话变成一个向量"
        "（一串数，长度为 1），图像塔对图片做同样的事。两座塔一起用图片和它们的说明来训练，"
        "直到相配的图和文指向同一个方向。",
    ),
    "zero_towers_try": (
        "Write a few sentences, one a line, English and Chinese as you like; the model draws each. "
        "Then change the sentences and watch the rows: the pictures stay. What does 红苹果 say to "
        "the picture of a red apple? This chapter uses the embedded model, whose image tower is "
        "here, if the loaded one has none.",
        "写几句话，每行一句，中文英文都行；模型会把每句画出来。然后改动句子，看各行怎样变化："
        "图片保持不变。“red apple” 和红苹果的图相配吗？如果载入的模型没有图像塔，"
        "本章就用内置模型，它的图像塔在这里。",
    ),
    "zero_sentences": ("Sentences", "句子"),
    "zero_sentences_hint": ("One a line, two to six", "每行一句，二到六句"),
    "zero_own_column": ("A picture of your own", "你自己的图片"),
    "zero_drawn_column": ("The picture of sentence {number}", "第 {number} 句的图"),
    "zero_draw_all": ("Draw them and compare", "画出来并比较"),
    "zero_most": (
        "Write two to {most} sentences, one a line, each of at most {letters} letters.",
        "请写二到 {most} 句话，每行一句，每句最多 {letters} 个字符。",
    ),
    "zero_table": (
        "How alike (1: the same way), and below it how likely the sentence's own picture",
        "上：相似度（1 表示方向相同）；下：它是这句话的图的概率",
    ),
    "zero_text_tower": (
        "first sentence → {tokens} tokens → text tower: {layers} layers → {width} numbers",
        "第一句 → {tokens} 个词元 → 文本塔：{layers} 层 → {width} 个数",
    ),
    "zero_image_tower": (
        "picture → {patches} squares of {side}×{side} pixels → image tower: {layers} layers "
        "→ {width} numbers",
        "图片 → {patches} 块 {side}×{side} 像素 → 图像塔：{layers} 层 → {width} 个数",
    ),
    "zero_towers_read": (
        "Each cell is the product of two vectors, number by number, added up. Nobody told the "
        "towers which word is which thing, nor that two languages name it: only that each caption "
        "belongs to its picture.",
        "每一格是两个向量逐个相乘再相加的结果。没有人告诉两座塔哪个词是哪样东西，"
        "也没有人说两种语言说的是同一样：它们只知道哪句说明属于哪幅图。",
    ),
    "zero_loss_title": ("How they learned: the contrastive loss", "它们怎样学会：对比损失"),
    "zero_loss_pairs": (
        "Training takes a batch of pairs and makes this very table. The diagonal, each sentence "
        "with its own picture, shall be large, all else small. The similarities, times a learned "
        "number τ, become probabilities along each row and each column; the loss is small when the "
        "diagonal has them all.",
        "训练时取一批图文对，算出的正是这张表。对角线（每句话和自己的图）要大，其余要小。"
        "相似度乘以学到的数 τ，再沿每行、每列变成概率；概率全在对角线上时，损失就小。",
    ),
    "zero_loss_rows": (
        "So every other picture of the batch serves as a wrong answer, free of charge. Write two "
        "sentences that mean the same and draw again: the loss grows, for no one could tell their "
        "pictures apart.",
        "于是同一批里的其他图片都白白充当了错误答案。写两句意思相同的话再画一次：损失会变大，"
        "因为谁也分不清它们的图。",
    ),
    "zero_loss_now": (
        "The loss of your {count} pairs is {loss:.3f}; blind guessing would have {guess:.3f}.",
        "你这 {count} 对的损失是 {loss:.3f}；瞎猜则是 {guess:.3f}。",
    ),
    "zero_no_loss": (
        "The loss is told when every sentence has its own picture: draw them again.",
        "每句话都有自己的图时才能算损失：请再画一次。",
    ),
    "zero_context_title": ("What the UNet hears", "UNet 听到什么"),
    "zero_context_heard": (
        "A picture is not drawn from that one vector. The sentence is cut into tokens, common "
        "pieces of words, and filled up to 77 places; the text tower gives every place its own row "
        "of numbers, coloured by all that stands before it. This block is the context.",
        "画图用的不是那一个向量。句子先切成词元（常见的词的片段），并补满 77 个位置；"
        "文本塔为每个位置给出一行数，每行都受到前面内容的影响。这一块数叫作上下文。",
    ),
    "zero_context_shape": (
        "The context of the first sentence: {shape} = {count:,} numbers, drawn above as grey, a "
        "row for each of the 77 places. The loaded model hears 1 × 77 × {heard:,}.",
        "第一句的上下文：{shape} = {count:,} 个数，上图以灰度画出，77 个位置各占一行。"
        "载入的模型听到的是 1 × 77 × {heard:,}。",
    ),
    "zero_context_alt": ("The context of: {line}", "上下文：{line}"),
    "zero_context_next": (
        "That is all that the painter learns of your sentence. How it looks at these rows comes "
        "next.",
        "关于你的句子，画家知道的就只有这些。它怎样查看这些行，下一章就讲。",
    ),
    # iii: the UNet and training
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
