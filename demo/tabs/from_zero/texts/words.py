"""Texts of chapter ii, words, in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
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
        "row for each of the 77 places. The loaded model hears 1 × 77 × {width:,}.",
        "第一句的上下文：{shape} = {count:,} 个数，上图以灰度画出，77 个位置各占一行。"
        "载入的模型听到的是 1 × 77 × {width:,}。",
    ),
    "zero_context_alt": ("The context of: {line}", "上下文：{line}"),
    "zero_context_next": (
        "That is all that the painter learns of your sentence. How it looks at these rows comes "
        "next.",
        "关于你的句子，画家知道的就只有这些。它怎样查看这些行，下一章就讲。",
    ),
}
