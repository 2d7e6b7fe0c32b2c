"""Words of the chapters iv and v of "From zero" in English and Chinese, see texts.py."""

ZERO_MORE = {
    "zero_sampling_title": ("Samplers and guidance", "采样与引导"),
    "zero_whole_title": ("The whole", "全貌"),
}
