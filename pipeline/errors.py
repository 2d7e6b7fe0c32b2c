"""What a person did wrong, in one sentence that also says what would be right."""


class InputError(ValueError):
    """Bad input of any kind: the command line exits with 2, the page shows the sentence."""


def closest(name: str, names) -> str:
    """`names` as text, those most like `name` first: for the end of an error sentence."""
    from difflib import SequenceMatcher

    low = str(name).lower()
    ranked = sorted(names, key=lambda n: -SequenceMatcher(None, low, n.lower()).ratio())
    return ", ".join(ranked)
