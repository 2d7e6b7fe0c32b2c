"""Texts of the panel that lists the objects and colours which the embedded model was trained on."""

VOCABULARY = {  # key: (English, Chinese)
    "knows": ("What this model knows", "这个模型认识什么"),
    "knows_objects": (
        "It was trained from zero on these objects and on nothing else. Choose one to use it.",
        "它从零开始学习，只见过下面这些东西。点一下就能用。",
    ),
    "knows_colours": (
        "One or two objects at a time, on a plain background of one of these colours:",
        "每次画一到两个物体，背景是下列纯色之一：",
    ),
    "knows_relations": (
        "Two objects can stand to the left of, to the right of, above or below each other.",
        "两个物体可以一左一右，或一上一下。",
    ),
    "knows_not": (
        "It does not know people, places, styles, letters, numbers, colours of objects, "
        "three or more things, or any word that is not listed here: it will draw something, "
        "but not that.",
        "它不认识人物、地点、风格、文字、数量、物体的颜色，也画不了三个以上的东西；"
        "没有列出的词，它会画点什么，但不会是你想要的。",
    ),
    "group_animals": ("Animals", "动物"),
    "group_plants": ("Plants", "植物"),
    "group_food": ("Food", "食物"),
    "group_travel": ("Travel", "旅行"),
    "group_activities": ("Activities", "活动"),
    "group_things": ("Things", "物品"),
}

COLOURS = {  # the embedded model's backgrounds: (English, Chinese, colour in CSS)
    "white": ("white", "白色", "#f5f5f5"),
    "gray": ("gray", "灰色", "#96999e"),
    "black": ("black", "黑色", "#202124"),
    "red": ("red", "红色", "#d63c3c"),
    "orange": ("orange", "橙色", "#f39237"),
    "yellow": ("yellow", "黄色", "#fadb5e"),
    "green": ("green", "绿色", "#5cb062"),
    "cyan": ("cyan", "青色", "#62cdd6"),
    "blue": ("blue", "蓝色", "#4279db"),
    "purple": ("purple", "紫色", "#8858c4"),
    "pink": ("pink", "粉色", "#f6a6c4"),
    "brown": ("brown", "棕色", "#885e42"),
}
