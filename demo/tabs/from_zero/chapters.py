"""The chapters of the tab "From zero", in their order: one file each, one line here.

`chapter(page)` fills its step with components and wires them; parts.py has what all of them use.
Its title is the text `zero_<key>_title`.
"""

from . import latents, sampling, trace, unet, words

CHAPTERS = {
    "latents": latents.chapter,
    "words": words.chapter,
    "unet": unet.chapter,
    "sampling": sampling.chapter,
    "whole": trace.chapter,
}
