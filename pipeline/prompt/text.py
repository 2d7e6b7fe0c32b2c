"""Prepare text for the CLIP tokenizer and for captions: spaces around Han characters, articles.

CLIP's tokenizer takes a run of letters for one word, so a whole Chinese sentence would become one
word that no training caption contained. With spaces around it, each Han character is a word.
Training captions and prompts go through the same function.
"""

import re

_HAN = re.compile(r"([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f])")


def space_han(text: str) -> str:
    """Return `text` with spaces around each Han character, so that CLIP takes each for a word.

    Double spaces become one.
    """
    return re.sub(r" +", " ", _HAN.sub(r" \1 ", text)).strip()


def with_article(name: str) -> str:
    """Return the name of a thing with "a" or "an", for a prompt or caption: 'an ice skate'.

    Plurals and names that do not begin with an ASCII letter are unchanged: 'grapes', '红苹果'.
    """
    plural = name.endswith("s") and not name.endswith(("us", "ss", "os", "is"))
    if plural or not name[:1].isascii():
        return name
    vowel = name[0].lower() in "aeiou" and not name.startswith("uni")
    return f"{'an' if vowel else 'a'} {name}"
