"""Prepare text for the CLIP tokenizer and for captions: spaces around Han characters, articles.

CLIP's word pattern takes a run of letters for one word, so a whole Chinese sentence would become
one word and never match a token that was learned. Spaces around each Han character make every
character a word. The training captions and every prompt go through the same function.
"""

import re

_HAN = re.compile(r"([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f])")


def space_han(text: str) -> str:
    """Return `text` with a space on both sides of each Han character, and no space doubled."""
    return re.sub(r" +", " ", _HAN.sub(r" \1 ", text)).strip()


def with_article(name: str) -> str:
    """Return 'an ice skate', 'a red apple', 'grapes', '红苹果': the name as captions have it."""
    plural = name.endswith("s") and not name.endswith(("us", "ss", "os", "is"))
    if plural or not name[:1].isascii():
        return name
    vowel = name[0].lower() in "aeiou" and not name.startswith("uni")
    return f"{'an' if vowel else 'a'} {name}"
