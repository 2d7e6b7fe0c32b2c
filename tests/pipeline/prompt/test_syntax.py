"""A table of cases from AUTOMATIC1111's published doctests and documentation, and bad input."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prompt.syntax import BREAK, LoraTag, Segment, parse, parse_spans
from pipeline.prompt.tokens import MAX_DEPTH, MAX_HINTS
from pipeline.prompt.weights import MAX_WEIGHT

DOWN = 1 / 1.1

ATTENTION = {  # of modules/prompt_parser.py, parse_prompt_attention; then the wiki's cheat sheet
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
    "a ((word))": [("a ", 1.0), ("word", 1.1 * 1.1)],
    "a [word]": [("a ", 1.0), ("word", DOWN)],
    "a (word:1.5)": [("a ", 1.0), ("word", 1.5)],
    "a (word:0.25)": [("a ", 1.0), ("word", 0.25)],
    r"a \(word\)": [("a (word)", 1.0)],
    r"anime_\(character\)": [("anime_(character)", 1.0)],
    "": [],
    "()": [],
    "(a:0)": [("a", 0.0)],
    "(a:-1.5)": [("a", -1.5)],
    "(a:+.5)": [("a", 0.5)],
    "(a:1.)": [("a", 1.0)],
    "(a: 1.3 )": [("a", 1.3)],
    "(a b, c:1.2)": [("a b, c", 1.2)],
    "(a:b:1.2)": [("a:b", 1.2)],
    "(:1.3)": [],
    "[(a:2)]": [("a", 2 * DOWN)],
    "([a]:2)": [("a", DOWN * 2)],
    "(a [b) c]": [("a ", 1.1), ("b", 1.1 * DOWN), (" c", DOWN)],  # brackets may cross
    r"(a\)b)": [("a)b", 1.1)],
    r"\\(a)": [("\\", 1.0), ("a", 1.1)],
    r"\[a\] \| \: \\": [("[a] | : \\", 1.0)],
    r"(a\:1.3)": [("a:1.3", 1.1)],
    r"a\b": [("a\\b", 1.0)],  # "anything else - just text"
    "a\\": [("a\\", 1.0)],
    "a | b": [("a | b", 1.0)],
    "(a|b)": [("a|b", 1.1)],
    "a: b, c:1.3": [("a: b, c:1.3", 1.0)],
    "红(苹果:1.2)": [("红", 1.0), ("苹果", 1.2)],
    "<3 <b> <x:y>": [("<3 <b> <x:y>", 1.0)],
}

SCHEDULE = {  # of modules/prompt_parser.py, at 10 steps; then the wiki's
    "test": [(10, "test")],
    "a [b:3]": [(3, "a "), (10, "a b")],
    "a [b: 3]": [(3, "a "), (10, "a b")],
    "a [[[b]]:2]": [(2, "a "), (10, [("a ", 1.0), ("b", DOWN * DOWN)])],
    "[(a:2):3]": [(3, ""), (10, [("a", 2.0)])],
    "a [b : c : 1] d": [(1, "a b  d"), (10, "a  c  d")],
    "a[b:[c:d:2]:1]e": [(1, "abe"), (2, "ace"), (10, "ade")],
    "a [unbalanced": [(10, [("a ", 1.0), ("unbalanced", DOWN)])],
    "a [b:.5] c": [(5, "a  c"), (10, "a b c")],
    "a [{b|d{:.5] c": [(5, "a  c"), (10, "a {b|d{ c")],
    "((a][:b:c [d:3]": [
        (3, [("a]", 1.1 * 1.1), (":b:c ", DOWN * 1.1 * 1.1)]),
        (10, [("a]", 1.1 * 1.1), (":b:c d", DOWN * 1.1 * 1.1)]),
    ],
    "[a|(b:1.1)]": [(i, "a" if i % 2 else [("b", 1.1)]) for i in range(1, 11)],
    "[fe|]male": [(i, "female" if i % 2 else "male") for i in range(1, 11)],
    "[fe|||]male": [
        (1, "female"),
        (4, "male"),
        (5, "female"),
        (8, "male"),
        (9, "female"),
        (10, "male"),
    ],
    "[cow|cow|horse|man siberian tiger|ox|man] in a field": [
        (2, "cow in a field"),
        (3, "horse in a field"),
        (4, "man siberian tiger in a field"),
        (5, "ox in a field"),
        (6, "man in a field"),
        (8, "cow in a field"),
        (9, "horse in a field"),
        (10, "man siberian tiger in a field"),
    ],
    "a [fantasy:cyberpunk:6] landscape": [
        (6, "a fantasy landscape"),
        (10, "a cyberpunk landscape"),
    ],
    "a [b::4]": [(4, "a b"), (10, "a ")],
    "[a:b:1.0]": [(10, "a")],  # with a point: a share of the steps
    "[a:b:1]": [(1, "a"), (10, "b")],
    "[a:b:0]": [(10, "b")],
    "[a:b:0.05]": [(10, "b")],
    "[a:b:9 ]": [(9, "a"), (10, "b")],
    "[a:b:10]": [(10, "a")],
    "[a:b:99]": [(10, "a")],
    "[a:b:-3]": [(10, "b")],
    "[a|a]": [(10, "a")],
    "[[a|b]:c:3]": [(1, "a"), (2, "b"), (3, "a"), (10, "c")],
    "([a:b:5]:1.5)": [(5, [("a", 1.5)]), (10, [("b", 1.5)])],
    "(a:[1.2:1.4:5])": [(5, [("a", 1.2)]), (10, [("a", 1.4)])],
    r"[a\:b:c:5]": [(5, "a:b"), (10, "c")],
    r"[a\|b|c]": [(i, "a|b" if i % 2 else "c") for i in range(1, 11)],
    "[a:b:c]": [(10, [("a:b:c", DOWN)])],
    "[a:b:c:5]": [(10, [("a:b:c:5", DOWN)])],
    "[a:b:1e3]": [(10, [("a:b:1e3", DOWN)])],
    "[a:b:nan]": [(10, [("a:b:nan", DOWN)])],
    "[x:(a [b) c:3] d]": [  # the outer bracket holds one that is closed outside
        (
            10,
            [
                ("x:", DOWN),
                ("a ", DOWN * 1.1),
                ("b", DOWN * DOWN * 1.1),
                (" c:3", DOWN * DOWN),
                (" d", DOWN),
            ],
        )
    ],
    "[a:b:(5)]": [(10, [("a:b:", DOWN), ("5", 1.1 * DOWN)])],
}

BREAKS = {
    "a BREAK b": ["a", BREAK, "b"],
    "aBREAK BREAKb _BREAK": ["aBREAK BREAKb _BREAK"],
    "a\n  BREAK\n,b": ["a", BREAK, ",b"],
    "BREAK a BREAK": [BREAK, "a", BREAK],
    "a BREAK BREAK b": ["a", BREAK, BREAK, "b"],
    "a break b": ["a break b"],
}

LORAS = {
    "<lora:x>": LoraTag("x", 1.0, 1.0),
    "<lora:x:0.8>": LoraTag("x", 0.8, 0.8),
    "<lora:x:0.5:0.7>": LoraTag("x", 0.7, 0.5),  # text encoder first
    "<lora:x:te=0.5>": LoraTag("x", 0.5, 0.5),
    "<lora:x:te=0.5:unet=2>": LoraTag("x", 2.0, 0.5),
    "<lora:x:0.5:unet=0>": LoraTag("x", 0.0, 0.5),
    "<lora: a (b) [c] :-1>": LoraTag("a (b) [c]", -1.0, -1.0),
    "<lyco:x:0.8>": LoraTag("x", 0.8, 0.8),
}

HINTS = {
    "a )": r"A \) closes nothing and is taken as text",
    "a ]": r"A \] closes nothing",
    "a (b": r"A \( is never closed",
    "a [b": r"A \[ is never closed",
    "(a:b)": "The weight b of .* is no number",
    "(a:1,2)": "The weight 1,2 of .* is no number",
    "(a:11)": "The weight 11 is too large",
    "(a:-11)": "The weight -11 is too large",
    "((a:5):5)": "multiply to a weight of 25, which is held at 10",
    "[a:b:c]": "names no step",
    "[a:b:]": "names no step",
    "[a:1|b]": "names no step",
    "[a:b:c:5]": "has 3 colons",
    "[a:b:-3]": "-3 of .* counts as 0",
    "[a:b:11]": "past the last of 10",
    "[a:b:1.5]": "past the last of 10",
    "cats AND dogs": "AND is read as a word",
    "<lora:>": None,
    "<lora:x:y>": "<lora:x:y> is taken as text",
    "<lora::1>": "<lora::1> is taken as text",
    "<lora:x:nan>": "is taken as text",
    "<lora:x:1:2:3>": "is taken as text",
    "<lora:x:dyn=3>": "is taken as text",
    "<lora:x:101>": "from -100 to 100",
    "<lyco:x>": "is read as <lora:...>",
    "<hypernet:x:1>": "hypernetworks are not supported",
    "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1): f"deeper than {MAX_DEPTH}",
}


def pairs(segments):
    return [s if s is BREAK else (s.text, s.weight) for s in segments]


def plain(expected):
    """The table's short form: text is one segment of weight 1."""
    return ([(expected, 1.0)] if expected else []) if isinstance(expected, str) else expected


def same(segments, expected):
    assert [t for t, _ in pairs(segments)] == [t for t, _ in expected]
    assert [w for _, w in pairs(segments)] == pytest.approx([w for _, w in expected], rel=1e-12)


@pytest.mark.parametrize("prompt", ATTENTION)
def test_attention(prompt):
    (part,) = parse(prompt, 20).parts
    assert part.end == 20
    same(part.segments, ATTENTION[prompt])


@pytest.mark.parametrize("prompt", SCHEDULE)
def test_schedule(prompt):
    parts = parse(prompt, 10).parts
    assert [p.end for p in parts] == [end for end, _ in SCHEDULE[prompt]]
    for part, (_, expected) in zip(parts, SCHEDULE[prompt], strict=True):
        same(part.segments, plain(expected))


def test_the_schedule_that_a1111_explains_in_its_source():
    parts = parse(
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
        "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]",
        100,
    ).parts
    start = "fantasy landscape with a "
    assert [(p.end, p.segments[0].text) for p in parts] == [
        (25, start + "mountain and an oak in foreground shoddy"),
        (50, start + "lake and an oak in foreground in background shoddy"),
        (60, start + "lake and an oak in foreground in background masterful"),
        (75, start + "lake and an oak in background masterful"),
        (100, start + "lake and a christmas tree in background masterful"),
    ]


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_a_share_of_the_steps_is_exact(steps):
    """In floats 0.29 * 100 is less than 29."""
    for percent in range(1, 100):
        first = parse(f"[a:b:0.{percent:02}]", steps).parts[0]
        last = percent * steps // 100
        assert (first.end, first.segments[0].text) == ((last, "a") if last else (steps, "b"))


@pytest.mark.parametrize("prompt", BREAKS)
def test_break(prompt):
    (part,) = parse(prompt, 20).parts
    assert [s if s is BREAK else s.text for s in part.segments] == BREAKS[prompt]


def test_break_inside_brackets_breaks_too():
    (part,) = parse("(a BREAK b:1.2) c", 20).parts
    assert part.segments == (Segment("a", 1.2), BREAK, Segment("b", 1.2), Segment(" c", 1.0))


@pytest.mark.parametrize("tag", LORAS)
def test_lora_tags_vanish_from_the_text(tag):
    parsed = parse(f"a {tag}(b:1.2)", 20)
    assert parsed.loras == (LORAS[tag],)
    assert pairs(parsed.parts[0].segments) == [("a ", 1.0), ("b", 1.2)]


def test_lora_tags_keep_their_order_and_stand_anywhere():
    parsed = parse("[<lora:a>x:(<lora:b:2>y):5]<lora:a:0.5>", 10)
    assert [(lora.name, lora.unet) for lora in parsed.loras] == [("a", 1), ("b", 2), ("a", 0.5)]
    assert [pairs(p.segments) for p in parsed.parts] == [[("x", 1.0)], [("y", 1.1)]]


@pytest.mark.parametrize("prompt", HINTS)
def test_what_is_taken_literally_is_told(prompt):
    hints = parse(prompt, 10).hints
    if HINTS[prompt] is None:
        assert hints == ()
    else:
        assert re.search(HINTS[prompt], hints[0]) and len(hints) == 1


def test_good_prompts_get_no_hints():
    good = r"(a:1.2) ((b)) [c] \(d\) [e:f:5] [g:0.5] [h::5] [i|j] BREAK <lora:k:1> l: m | n <3"
    assert parse(good, 10).hints == ()


def test_literal_tags_and_deep_brackets_stay_in_the_text():
    assert parse("<lora:x:y>", 5).parts[0].segments == (Segment("<lora:x:y>", 1.0),)
    deep = MAX_DEPTH + 2
    (segment,) = parse("[" * deep + "a" + "]" * deep, 5).parts[0].segments
    assert segment.text == "[[a]]" and segment.weight == pytest.approx(DOWN**MAX_DEPTH)


def test_hints_are_few_short_and_printable():
    hints = parse("".join(f"(a:\x00{i}\n{'x' * 500})" for i in range(50)), 5).hints
    assert len(hints) == MAX_HINTS + 1 and hints[-1] == "42 more hints are not shown."
    assert all(hint.isprintable() and len(hint) < 300 for hint in hints)


def test_alternating_texts_are_parsed_once():
    parts = parse("[a|b]", 200).parts
    assert len(parts) == 200 and len({id(p.segments) for p in parts}) == 2


SPANS = {
    "a (b:1.2)": "text1 a |syntax (|text1.2 b|syntax :1.2)",
    "[a:(b):5]c": "schedule [|text1 a|schedule :|syntax (|text1.1 b|syntax )|schedule :5]|text1 c",
    "[a:b:5](c)": "schedule [|text1 a|schedule :|text1 b|schedule :5]|syntax (|text1.1 c|syntax )",
    r"\(a BREAK<lora:x>": r"text1 \(a |break BREAK|lora <lora:x>",
    "a) <lora:x:y>": "text1 a) <lora:x:y>",
    "": "",
}


@pytest.mark.parametrize("prompt", SPANS)
def test_spans(prompt):
    found = [
        f"{s.kind}{'' if s.weight is None else f'{s.weight:g}'} {s.text}"
        for s in parse_spans(prompt)
    ]
    assert "|".join(found) == SPANS[prompt]
    assert [(s.text, s.kind) for s in parse_spans("[a|b]")] == [
        ("[", "schedule"),
        ("a", "text"),
        ("|", "schedule"),
        ("b", "text"),
        ("]", "schedule"),
    ]


PIECES = [
    *"()[]:|\\<>ab .-,\n5",
    ":1.3)",
    ":5]",
    "0.5",
    "BREAK",
    " AND ",
    "<lora:x:1>",
    "<lora:",
    "红",
]
prompts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.text())


@settings(max_examples=300, deadline=None)
@given(prompts, st.integers(1, 30))
def test_any_prompt_can_be_parsed(prompt, steps):
    parsed = parse(prompt, steps)
    ends = [p.end for p in parsed.parts]
    assert ends == sorted(set(ends)) and ends[0] >= 1 and ends[-1] == steps
    for one, two in zip(parsed.parts, parsed.parts[1:], strict=False):
        assert one.segments != two.segments
    for part in parsed.parts:
        texts = [s for s in part.segments if s is not BREAK]
        assert all(s.text and abs(s.weight) <= MAX_WEIGHT for s in texts)
        assert sum(len(s.text) for s in texts) <= len(prompt)
        for one, two in zip(part.segments, part.segments[1:], strict=False):
            assert BREAK in (one, two) or one.weight != two.weight
    assert all(h.isprintable() and h[-1] == "." for h in parsed.hints)


@settings(max_examples=300, deadline=None)
@given(prompts)
def test_spans_are_the_prompt(prompt):
    found = parse_spans(prompt)
    assert "".join(s.text for s in found) == prompt
    assert all((s.weight is not None) == (s.kind == "text") for s in found)


@settings(max_examples=200, deadline=None)
@given(prompts)
def test_spans_weigh_as_the_first_step_does(prompt):
    """Where nothing changes from step to step, the text is that of the spans."""
    found = parse_spans(prompt)
    if any(s.kind == "schedule" for s in found):
        return
    weights = {s.weight for s in found if s.kind == "text"}
    assert {s.weight for s in parse(prompt, 3).parts[0].segments if s is not BREAK} <= weights


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab ()[]\\:|5.", max_size=40))
def test_escaped_text_is_that_text(text):
    parsed = parse(re.sub(r"([()\[\]\\:|])", r"\\\1", text), 5)
    assert pairs(parsed.parts[0].segments) == ([(text, 1.0)] if text else [])
    assert len(parsed.parts) == 1 and parsed.hints == ()


HOSTILE = [
    "(" * 30_000,
    "[" * 20_000 + "]" * 20_000,
    "([|:" * 5_000,
    "[a|" * 5_000,
    "[a:b:" * 5_000 + "5]" * 5_000,
    "[a|b]" * 5_000,
    "(" * 32 + "a)(" * 5_000,
    "<lora:" * 5_000,
    " " * 30_000 + "BREAK",
    "BREAK " * 5_000,
    "\\" * 20_001,
    "(a:" + "9" * 20_000 + ")",
    "[a:b:" + "9" * 20_000 + "]",
    "<lora:x:" + "9" * 20_000 + ">",
    "\0\ud800\x1b[31m" * 5_000,
    "".join(f"[{'|'.join('ab' * n)}]" for n in range(1, 70)),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_prompts_end_soon_and_stay_small(number):
    """Whatever were quadratic or recursive would not come back from these."""
    prompt = HOSTILE[number]
    parsed = parse(prompt, 200)
    assert parsed.parts[-1].end == 200 and len(parsed.hints) <= MAX_HINTS + 1
    assert len("".join(s.text for s in parsed.parts[0].segments if s is not BREAK)) <= len(prompt)
    assert "".join(s.text for s in parse_spans(prompt)) == prompt
