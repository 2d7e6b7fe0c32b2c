"""What a text asks for: every program's way of saying it, and what must not get through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metadata import infotext
from pipeline.metadata.import_settings import parse_settings
from pipeline.metadata.infotext import MAX_TEXT
from pipeline.options import LIMITS, MAX_PROMPT, MAX_SEED, GenerateOptions
from pipeline.samplers import SAMPLERS, SCHEDULES

MODELS = {"emoji": "0123456789", "painter": "abcdef0123", "nameless": ""}
LINE = "Steps: 20, Sampler: Euler a, Seed: 1"

A1111_OLD = """portrait of a fox, ((sharp focus)), [blue], <lora:foxes:0.8>
Negative prompt: blurry, low quality
Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 4023, Size: 512x768, \
Model hash: abcdef0123, Model: fox_mix, Denoising strength: 0.55, Clip skip: 2, ENSD: 31337, \
Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent, \
Lora hashes: "foxes: 112233445566, other: 998877665544", TI hashes: "bad: 0011223344", \
Version: v1.6.0"""
A1111_NEW = """a harbour at dusk,
oil on canvas BREAK boats
Negative prompt: people
text
Steps: 30, Sampler: Euler, Schedule type: Karras, CFG scale: 7.0, Seed: 99, Size: 640x448, \
Model hash: ffffffffff, Model: harbours, VAE hash: 1122334455, VAE: a.vae.pt, RNG: CPU, \
Hires prompt: "a harbour,\\nvery sharp", Hires Module 1: Use same choices, Version: v1.10.1"""
FORGE = """two cats
Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 7, \
Size: 896x1152, Model hash: 0123456789, Model: emoji, Rescale CFG: 0.7, \
Version: f2.0.1v1.10.1-previous-1-ga1b2c3d4, Module 1: ae, Module 2: clip_l"""
CIVITAI = """a lighthouse <lora:storm:1>
Negative prompt: calm sea
Steps: 24, cfgScale: 5, sampler: Euler a, Seed: 321, clipSkip: 2, Size: 832x1216, \
Created Date: 2025-03-04T05:06:07.8901234Z, Civitai resources: \
[{"type":"checkpoint","modelVersionId":1,"modelName":"A, B"},{"type":"lora","weight":1}], \
Civitai metadata: {"remixOfId":5}"""
FOOOCUS = """a castle
Negative prompt: ruins
Steps: 30, Sampler: dpmpp_2m_sde, Scheduler: karras, Seed: 12, Size: 1152x896, CFG scale: 4, \
Sharpness: 2, ADM Guidance: "(1.5, 0.8, 0.3)", Model: painter, Performance: Speed, \
Version: Fooocus v2"""

READ = {
    "A1111 1.6": (
        A1111_OLD,
        {
            "prompt": "portrait of a fox, ((sharp focus)), [blue], <lora:foxes:0.8>",
            "negative": "blurry, low quality",
            "steps": 25,
            "seed": 4023,
            "cfg": 6.5,
            "clip_skip": 2,
            "width": 512,
            "height": 768,
            "sampler": "dpmpp_2m",
            "schedule": "karras",
        },
        "painter",
        {
            "Denoising strength": "0.55",
            "ENSD": "31337",
            "Hires upscale": "2",
            "Hires steps": "10",
            "Hires upscaler": "Latent",
            "Lora hashes": "foxes: 112233445566, other: 998877665544",
            "TI hashes": "bad: 0011223344",
            "Version": "v1.6.0",
        },
        [],
    ),
    "A1111 1.10": (
        A1111_NEW,
        {
            "prompt": "a harbour at dusk,\noil on canvas BREAK boats",
            "negative": "people\ntext",
            "steps": 30,
            "cfg": 7.0,
            "seed": 99,
            "width": 640,
            "height": 448,
            "sampler": "euler",
            "schedule": "karras",
        },
        None,
        {
            "VAE hash": "1122334455",
            "VAE": "a.vae.pt",
            "RNG": "CPU",
            "Hires prompt": "a harbour,\nvery sharp",
            "Hires Module 1": "Use same choices",
            "Version": "v1.10.1",
            "Model": "harbours",
            "Model hash": "ffffffffff",
        },
        ["'harbours' (hash 'ffffffffff') is not here"],
    ),
    "Forge": (
        FORGE,
        {
            "prompt": "two cats",
            "negative": "",
            "steps": 20,
            "cfg": 1.0,
            "seed": 7,
            "width": 896,
            "height": 1152,
            "cfg_rescale": 0.7,
            "sampler": "euler",
            "schedule": "simple",
        },
        "emoji",
        {
            "Distilled CFG Scale": "3.5",
            "Version": "f2.0.1v1.10.1-previous-1-ga1b2c3d4",
            "Module 1": "ae",
            "Module 2": "clip_l",
        },
        [],
    ),
    "Civitai": (
        CIVITAI,
        {
            "prompt": "a lighthouse <lora:storm:1>",
            "negative": "calm sea",
            "steps": 24,
            "cfg": 5.0,
            "seed": 321,
            "clip_skip": 2,
            "width": 832,
            "height": 1216,
            "sampler": "euler_a",
        },
        None,
        {
            "Created Date": "2025-03-04T05:06:07.8901234Z",
            "Civitai resources": '[{"type":"checkpoint","modelVersionId":1,"modelName":"A, B"},'
            '{"type":"lora","weight":1}]',
            "Civitai metadata": '{"remixOfId":5}',
        },
        [],
    ),
    "Fooocus": (
        FOOOCUS,
        {
            "prompt": "a castle",
            "negative": "ruins",
            "steps": 30,
            "seed": 12,
            "width": 1152,
            "height": 896,
            "cfg": 4.0,
            "sampler": "dpmpp_2m_sde",
            "schedule": "karras",
        },
        "painter",
        {
            "Sharpness": "2",
            "ADM Guidance": "(1.5, 0.8, 0.3)",
            "Performance": "Speed",
            "Version": "Fooocus v2",
        },
        [],
    ),
    "only a prompt": ("a cat", {"prompt": "a cat", "negative": ""}, None, {}, ["only a prompt"]),
}


@pytest.mark.parametrize("name", list(READ))
def test_texts_of_every_program(name):
    text, fields, model, others, warnings = READ[name]
    found = parse_settings(text, MODELS)
    assert (found.fields, found.model, found.others) == (fields, model, others)
    assert len(found.warnings) == len(warnings)
    assert all(part in said for part, said in zip(warnings, found.warnings, strict=True))


def test_sampler_and_schedule_as_this_program_writes_them():
    for key, sampler in SAMPLERS.items():
        for plan in sampler.schedules:
            line = f"Steps: 9, Sampler: {sampler.label}, Schedule type: {SCHEDULES[plan].label}"
            found = parse_settings(line)
            assert (found.fields["sampler"], found.fields["schedule"]) == (key, plan)
            assert not found.warnings


number = st.floats(0, 1)
prompts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    prompt=prompts,
    negative=prompts,
    steps=st.integers(*LIMITS["steps"]),
    cfg=st.floats(*LIMITS["cfg"]),
    seed=st.integers(*LIMITS["seed"]),
    side=st.integers(8, 256),
    clip_skip=st.none() | st.integers(*LIMITS["clip_skip"]),
    cfg_rescale=st.none() | st.floats(*LIMITS["cfg_rescale"]),
)
def test_our_own_pictures_come_back(
    prompt, negative, steps, cfg, seed, side, clip_skip, cfg_rescale
):
    line = {
        "Steps": steps,
        "Sampler": "Euler a",
        "Schedule type": "Automatic",
        "CFG scale": cfg,
        "Seed": seed,
        "Size": f"{side * 8}x64",
        "Model hash": "0123456789",
        "Model": "emoji",
        "Clip skip": clip_skip,
        "CFG rescale": cfg_rescale,
        "Version": "glassbox 1",
    }
    found = parse_settings(infotext.build(prompt, negative, line), MODELS)
    expected = {"prompt": prompt, "negative": negative, "steps": steps, "cfg": cfg, "seed": seed}
    expected |= {"width": side * 8, "height": 64, "sampler": "euler_a", "schedule": "automatic"}
    expected |= {} if clip_skip is None else {"clip_skip": clip_skip}
    expected |= {} if cfg_rescale is None else {"cfg_rescale": cfg_rescale}
    assert (found.fields, found.model) == (expected, "emoji")
    assert (found.others, found.warnings) == ({"Version": "glassbox 1"}, ())


OUT = {
    "steps": ("Steps: 1e9, Seed: 1, Size: 64x64", "steps", "Steps must be a whole number from 1"),
    "steps, many digits": (f"Steps: {'9' * 9000}, Seed: 1, Size: 64x64", "steps", "Steps must be"),
    "half a step": ("Steps: 1.5, Seed: 1, Size: 64x64", "steps", "not '1.5'"),
    "cfg": (f"{LINE}, CFG scale: nan", "cfg", "Cfg must be a number from 0 to 30"),
    "cfg beyond": (f"{LINE}, CFG scale: 1e308", "cfg", "not '1e308'"),
    "rescale": (f"{LINE}, CFG Rescale φ: 2", "cfg_rescale", "Cfg_rescale must be a number"),
    "clip skip": (f"{LINE}, Clip skip: 13", "clip_skip", "from 1 to 12"),
    "seed": ("Steps: 1, Sampler: Euler, Seed: -1", "seed", "leave it out for a random one"),
    "seed beyond": (f"Steps: 1, Sampler: Euler, Seed: {MAX_SEED + 1}", "seed", str(MAX_SEED)),
    "width": (f"{LINE}, Size: 999999x512", "width", "Width must be a whole number from 64"),
    "height": (f"{LINE}, Size: 512x513", "height", "Height must be a multiple of 8, not 513"),
    "size": (f"{LINE}, Size: large", "width", "Size must be WIDTHxHEIGHT such as 512x512"),
    "sampler": ("Steps: 1, Sampler: Warp, Seed: 2", "sampler", "There is no sampler 'Warp'"),
    "schedule": (f"{LINE}, Schedule type: Slow", "schedule", "There is no schedule 'Slow'"),
    "pair": (
        "Steps: 1, Sampler: LCM, Schedule type: Karras, Seed: 1",
        "schedule",
        "LCM does not take the schedule karras",
    ),
    "prompt": (f"{'x' * (MAX_PROMPT + 1)}\n{LINE}", "prompt", "at most 10,000"),
    "negative": (f"a\nNegative prompt: {'x' * 900_000}\n{LINE}", "negative", "900,000 characters"),
    "an endless sampler": (
        f"Steps: 1, Sampler: {'Euler ' * 150_000}, Seed: 2",
        "sampler",
        "There is no sampler 'Euler Euler",
    ),
    "an endless model": (f"{LINE}, Model: {'emoji' * 180_000}", "model", "'emojiemoji"),
    "NUL in JSON": (rf'a{chr(10)}{LINE}, Exact prompt: "b\u0000"', "prompt", "NUL"),
}


@pytest.mark.parametrize("name", list(OUT))
def test_what_is_out_of_range_is_left_out_with_a_sentence_and_the_rest_stays(name):
    text, left_out, sentence = OUT[name]
    found = parse_settings(text)
    assert left_out not in found.fields
    assert len(found.warnings) == 1 and sentence in found.warnings[0]
    assert len(found.warnings[0]) < 500 and found.warnings[0].endswith(".")
    assert len({"steps", "sampler", "seed", "width"} & set(found.fields)) >= 2


@pytest.mark.parametrize(
    ("name", "digest", "chosen", "warning"),
    [
        ("emoji", "0123456789", "emoji", None),
        ("emoji", "", "emoji", None),
        ("another name", "ABCDEF0123", "painter", None),
        ("emoji", "abcdef0123" + "0" * 54, "painter", None),
        ("", "0123456789", "emoji", None),
        ("painter", "0" * 10, "painter", "hash abcdef0123, the text says '0000000000'"),
        ("nameless", "0" * 10, "nameless", "hash unknown"),
        ("Emoji", "", None, "'Emoji' is not here; choose another"),
        ("x", "abcdef01", None, "'x' (hash 'abcdef01') is not here"),
        ("", "0" * 10, None, "'0000000000' is not here"),
        ("../../x", "", None, "'../../x' is not here"),
        ("/etc/passwd", "", None, "'/etc/passwd' is not here"),
        ("./emoji", "", None, "is not here"),
        ("models/emoji", "zzzzzzzzzz", None, "is not here"),
    ],
)
def test_a_model_is_one_of_the_list_and_never_a_path(name, digest, chosen, warning):
    line = (
        LINE + (f", Model: {name}" if name else "") + (f", Model hash: {digest}" if digest else "")
    )
    found = parse_settings(line, MODELS)
    assert found.model == chosen and "model" not in found.fields
    assert [warning in said for said in found.warnings] == [True] * (warning is not None)
    assert ("Model" in found.others or "Model hash" in found.others) == (chosen is None)


def test_two_models_of_one_hash_go_by_name():
    twins = {"a": "0123456789", "b": "0123456789"}
    for name in twins:
        assert parse_settings(f"{LINE}, Model: {name}, Model hash: 0123456789", twins).model == name


def test_without_a_list_no_model_is_chosen():
    found = parse_settings(f"{LINE}, Model: emoji")
    assert found.model is None and "'emoji' is not here" in found.warnings[0]


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ('{"sui_image_params": {"prompt": "x"}}', "SwarmUI"),
        ('{"full_prompt": ["x"], "steps": 30}', "Fooocus"),
        ('{"3": {"class_type": "KSampler"}}', "another program"),
    ],
)
def test_json_of_other_programs_is_named_and_shown(text, program):
    found = parse_settings(text, MODELS)
    assert not found.fields and found.model is None and found.others
    assert program in found.warnings[0] and len(found.warnings) == 1


def test_a_prompt_in_braces_is_no_json():
    assert parse_settings(f"{{red|blue}} cat\n{LINE}").fields["prompt"] == "{red|blue} cat"


def test_empty_and_endless_texts():
    assert parse_settings(" \n\0").warnings == ("The text is empty.",)
    found = parse_settings("x" * (MAX_TEXT + 1))
    assert not found.fields and "1,000,001 characters; at most 1,000,000" in found.warnings[0]
    assert parse_settings("[" * MAX_TEXT).warnings and parse_settings('{"a":' * 200_000).warnings


def test_what_is_shown_is_clean_and_short():
    found = parse_settings(f'{LINE}, Note: "a\\u0007\\ud83d\\u001b[0m", Long: {"x" * 100_000}')
    assert found.others["Note"] == "a[0m" and len(found.others["Long"]) < 3000


@given(st.text(max_size=300) | st.from_regex(r"a\n(Steps|Seed|Size|Model|Sampler): [\s\S]{0,99}"))
def test_any_text_gives_what_options_take(text):
    found = parse_settings(text + f"\n{LINE}, Size: {text}, CFG scale: {text}", MODELS)
    GenerateOptions(**found.fields)
    assert found.model is None or found.model in MODELS
    assert all(isinstance(v, str) for v in found.others.values())
