"""Texts of chapter iv, samplers and guidance, in English and Chinese."""

TEXTS = {  # key: (English, Chinese)
    "zero_sampling_head_title": ("From noise to data", "从噪声到数据"),
    "zero_sampling_lead": (
        "The UNet says one thing only: what in a noisy picture is noise. A sampler asks it again "
        "and again and each time goes a little way, from pure noise to a picture. Here a picture "
        "is a single number, so that all ways fit on one sheet: noise stands on the left, the data "
        "on the right, three heaps of numbers. For such data the perfect model is known as a "
        "formula, so every error you see is the sampler's own. The samplers are the code that "
        "draws your pictures.",
        "UNet 只回答一件事：带噪的图里哪些是噪声。采样器一次次问它，每次走一小步，"
        "从纯噪声走到图片。这里一幅“图”只是一个数，所有的路径都能画在一张纸上："
        "左边是噪声，右边是数据，也就是三堆数。这样的数据，完美的模型有公式可写，"
        "所以你看到的误差全是采样器自己的。这里的采样器就是替你画图的那段代码。",
    ),
    "zero_sampling_try": (
        "Try it: 3 steps, then 30. Colours tell where a path began: DDIM and DPM++ 2M keep them in "
        "order, because without new noise paths never cross; DDPM and Euler a mix them, and mix "
        "them alike, for they are one method written in two scales, until Euler a takes another "
        "schedule. “Draw again” changes only the noise on the way: which samplers stand still?",
        "试一试：先 3 步，再 30 步。颜色表示路径从哪里出发：DDIM 和 DPM++ 2M 保持颜色的次序，"
        "因为不加新噪声的路径不会交叉；DDPM 和 Euler a 会把它们打乱，而且打乱得一模一样："
        "它们是同一个方法的两种写法，直到 Euler a 换了调度。"
        "“再画一次”只换途中的噪声：哪些采样器纹丝不动？",
    ),
    "zero_again": ("Draw again", "再画一次"),
    "zero_noise_end": ("noise", "噪声"),
    "zero_data_end": ("data", "数据"),
    "zero_plot_alt": (
        "{count} paths from noise to data; they end {distance} from the data after {calls} model "
        "calls",
        "从噪声到数据的 {count} 条路径；调用模型 {calls} 次后，终点与数据相距 {distance}",
    ),
    "zero_distance": ("Distance to the data", "与数据的距离"),
    "zero_calls": ("Model calls", "调用模型"),
    "zero_not_taken": ("{plan}; it does not take {schedule}", "{plan}；它不支持 {schedule}"),
    "zero_fortune": (
        "Distance: how far the ends must be moved on average to become the data (Wasserstein, "
        "order 1), over {count} paths. As many numbers drawn from the data themselves would be "
        "about {distance} away by luck alone; samplers that draw noise come no closer for long.",
        "距离：终点平均要移动多远才能变成数据的分布（一阶 Wasserstein 距离），"
        "用 {count} 条路径计算。直接从数据里抽同样多的数，单凭运气也会相差约 {distance}，"
        "加噪声的采样器很难比这更近。",
    ),
    "zero_curves_title": ("What a call of the model buys", "每次调用模型换来什么"),
    "zero_curves_lead": (
        "The distance over the calls of the model that it took, from 2 to 50 steps. A picture's "
        "time is nearly all calls, so the lowest line is the best buy. Choose other samplers and "
        "schedules above.",
        "横轴是调用模型的次数（2 到 50 步），纵轴是与数据的距离。画图的时间几乎全花在调用上，"
        "所以越低的线越划算。可以在上面换采样器和调度。",
    ),
    "zero_curves_alt": (
        "Distance to the data over calls of the model, a line for each of the four samplers",
        "与数据的距离随调用次数的变化，四个采样器各一条线",
    ),
    "zero_luck": ("luck", "运气"),
    "zero_guidance_title": ("Guidance", "引导"),
    "zero_guidance_lead": (
        "A prompt says which kind of picture is wanted, here: which heaps. The model is asked "
        "twice, about all data and about that class alone, and guidance goes from the first "
        "answer through the second and beyond. 0 does not hear the prompt, 1 is the class as it "
        "is.",
        "提示词说的是要哪一类图，这里就是要哪几堆数。模型被问两次：一次问全部数据，一次只问这一类。"
        "引导从第一个回答出发，穿过第二个，再往前走。0 完全不听提示词，1 正好是这一类本来的样子。",
    ),
    "zero_guidance_try": (
        "Try it: the two on the right, from 0 up to 15. At 1 the paths end in the class. At 4 its "
        "nearer heap is all but empty: variety is lost. At 10 the numbers lie beyond the middle of "
        "the other heap, close together: in pictures, glaring colours. The dashed line is what the "
        "formula seems to promise; the paths do not end there (arXiv 2409.13074).",
        "试一试：选右边两堆，从 0 调到 15。到 1，所有路径都落在这一类；到 4，靠里的那一堆几乎空了："
        "多样性没了；到 10，数越过了另一堆的中心，挤在一起：在图片里就是刺眼的颜色。"
        "虚线是公式看上去许诺的分布，路径并不落在那里（arXiv 2409.13074）。",
    ),
    "zero_class": ("What the prompt asks for", "提示词要的是"),
    "zero_class_left": ("the left heap", "左边一堆"),
    "zero_class_right": ("the two on the right", "右边两堆"),
    "zero_look": ("Look at step", "看第几步"),
    "zero_inside": ("End in the class", "落在这一类"),
    "zero_mean": ("Mean (class)", "平均（该类）"),
    "zero_spread": ("Spread (class)", "离散（该类）"),
    "zero_to_class": ("Distance to the class", "与该类的距离"),
    "zero_to_promise": ("to what is promised", "与许诺的距离"),
    "zero_curve_class": ("the class", "该类"),
    "zero_curve_promise": ("all data × (class / all data)ʷ", "全部数据 ×（该类 / 全部数据）ʷ"),
    "zero_at_step": (
        "The thick path at step {step} of {steps}: σ = {sigma}, the number is {x}.",
        "粗线在第 {step} / {steps} 步：σ = {sigma}，此时的数是 {x}。",
    ),
    "zero_of_all": ("all ∅", "全部 ∅"),
    "zero_of_class": ("class c", "该类 c"),
    "zero_of_both": ("guided", "引导后"),
    "zero_row_score": ("score s, uphill to the data", "得分 s：朝数据走的方向"),
    "zero_row_eps": ("noise ε = −σ s, the UNet's answer", "噪声 ε = −σ s：UNet 的回答"),
    "zero_row_clean": ("believed data x + σ² s", "相信的数据 x + σ² s"),
    "zero_formula_note": (
        "The same line is what the denoiser computes with your prompt and the negative prompt, for "
        "all numbers of the latents at once.",
        "去噪器对你的提示词和反向提示词算的就是这一行，只不过对潜变量里所有的数一起算。",
    ),
}
