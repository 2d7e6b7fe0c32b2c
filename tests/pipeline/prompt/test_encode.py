"""Prompts through tiny random text encoders: against diffusers, and A1111's rules by hand."""

import pytest
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from pipeline import InputError
from pipeline.prompt.chunks import BACKTRACK, chunks, count_tokens
from pipeline.prompt.embeddings import Embedding
from pipeline.prompt.encode import TextEncoder, TextEncoders, encode_prompts
from pipeline.prompt.syntax import parse
from pipeline.prompt.text import space_han

STEPS = 10
PROMPTS = [
    "",
    "a red apple",
    "a RED  apple,on\nblue",
    "红苹果",
    "a red apple on blue " * 40,
    "it's",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return CLIPTokenizer.from_pretrained(tiny_model / "tokenizer")


@pytest.fixture(scope="module")
def exclamation(tiny_model):
    """As Stable Diffusion 2's and XL's second: padded with "!"."""
    return CLIPTokenizer.from_pretrained(tiny_model / "tokenizer", pad_token="!")


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return CLIPTextModel.from_pretrained(tiny_model / "text_encoder").eval()


def random_encoder(tokenizer, width, layers, kind=CLIPTextModel):
    """With a mean that is not 0, as trained encoders have it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width)
        model = kind(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=32,
                num_hidden_layers=layers,
                num_attention_heads=2,
                max_position_embeddings=77,
                projection_dim=12,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        ).eval()
        text = getattr(model, "text_model", model)
        torch.nn.init.normal_(text.embeddings.token_embedding.weight, 0.5, 1.0)
        torch.nn.init.uniform_(text.final_layer_norm.bias, 0.0, 1.0)
    return model


@pytest.fixture(scope="module")
def sd1(tokenizer):
    return TextEncoders((TextEncoder(tokenizer, random_encoder(tokenizer, 16, 3)),), "sd1")


@pytest.fixture(scope="module")
def xl(tokenizer, exclamation):
    second = random_encoder(exclamation, 24, 2, CLIPTextModelWithProjection)
    first = random_encoder(tokenizer, 16, 3)
    return TextEncoders(
        (TextEncoder(tokenizer, first), TextEncoder(exclamation, second)), "xl", True
    )


def conditioned(text, positive, negative="", **options):
    one, two, warnings = encode_prompts(
        text, parse(positive, STEPS), parse(negative, STEPS), **options
    )
    assert not warnings
    return one, two


def rows_of(tokenizer, text):
    (part,) = parse(text, STEPS).parts
    return chunks(tokenizer, part.segments, {})


def plain_rows(tokenizer, text):
    """The reference: token ids cut every 75, with start, end and padding."""
    ids = tokenizer(space_han(text), add_special_tokens=False, verbose=False).input_ids
    rows = []
    for i in range(0, max(len(ids), 1), 75):
        row = [tokenizer.bos_token_id, *ids[i : i + 75], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (77 - len(row)))
    return rows


def plain_words(tokenizer, text):
    """The reference: a word ends with its token that ends in </w>."""
    found, letters, places = [], [], []
    for number, row in enumerate(plain_rows(tokenizer, text)):
        for place, name in enumerate(tokenizer.convert_ids_to_tokens(row)):
            if row[place] in (tokenizer.bos_token_id, tokenizer.eos_token_id):
                continue
            letters.append(row[place])
            places.append(77 * number + place)
            if name.endswith("</w>"):
                found.append((tokenizer.decode(letters).strip(), places))
                letters, places = [], []
    return found


def hidden(encoder, text):
    """All hidden states of a text of one chunk, straight from the model."""
    ids = torch.tensor(plain_rows(encoder.tokenizer, text))
    with torch.no_grad():
        return encoder.model(input_ids=ids, output_hidden_states=True)


@pytest.mark.parametrize("negative", ["", "blue " * 80])
@pytest.mark.parametrize("positive", PROMPTS)
def test_without_syntax_it_is_the_plain_encoder_to_the_bit(tokenizer, encoder, positive, negative):
    text = TextEncoders((TextEncoder(tokenizer, encoder),), "sd1")
    rows = [plain_rows(tokenizer, t) for t in (positive, negative)]
    count = max(map(len, rows))
    expected = []
    for own in rows:
        own += plain_rows(tokenizer, "") * (count - len(own))
        with torch.no_grad():
            states = encoder(input_ids=torch.tensor(own)).last_hidden_state
        expected.append(states.reshape(1, 77 * count, -1))
    one, two = conditioned(text, positive, negative)
    assert one.ends == two.ends == (STEPS,) and one.pooled == two.pooled == (None,)
    assert torch.equal(one.contexts[0], expected[0]) and torch.equal(two.contexts[0], expected[1])
    assert list(one.word_spans[0]) == plain_words(tokenizer, positive)


@pytest.mark.parametrize("negative", [None, "", "blue"])
def test_xl_is_what_diffusers_makes_of_it(xl, negative):
    from diffusers import StableDiffusionXLPipeline

    parts = {f: None for f in ("vae", "unet", "scheduler")}
    for end, encoder in zip(("", "_2"), xl.encoders, strict=True):
        parts |= {f"tokenizer{end}": encoder.tokenizer, f"text_encoder{end}": encoder.model}
    pipeline = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    with torch.no_grad():
        context, uncond, pooled, uncond_pooled = pipeline.encode_prompt(
            "a red apple", negative_prompt=negative
        )
    text = TextEncoders(xl.encoders, "xl", zero_empty_negative=negative is None)
    one, two = conditioned(text, "a red apple", negative or "")
    assert torch.equal(one.contexts[0], context) and torch.equal(one.pooled[0], pooled)
    assert torch.equal(two.contexts[0], uncond) and torch.equal(two.pooled[0], uncond_pooled)
    assert two.contexts[0].any() == (negative is not None)
    assert one.contexts[0].shape == (1, 77, 40) and one.pooled[0].shape == (1, 12)


def test_an_empty_negative_of_xl_is_zero_at_any_length_and_only_it(xl):
    one, two = conditioned(xl, "apple " * 80, " ")
    assert two.contexts[0].shape == one.contexts[0].shape == (1, 154, 40)
    assert not two.contexts[0].any() and not two.pooled[0].any() and two.word_spans == ((),)
    for negative in ("blue", "BREAK", "[blue::5]"):
        assert all(c.any() for c in conditioned(xl, "apple", negative)[1].contexts)
    same = parse("", STEPS)
    one, two, _ = encode_prompts(xl, same, same)
    assert one.contexts[0].any() and not two.contexts[0].any()


def test_xl_pools_the_first_chunk_of_the_last_tower(xl):
    long, _ = conditioned(xl, "red " * 75 + "apple")
    short, _ = conditioned(xl, "red " * 75)
    assert torch.allclose(long.pooled[0], short.pooled[0], atol=1e-6)
    assert torch.allclose(long.contexts[0][:, :77], short.contexts[0], atol=1e-5)


def test_clip_skip_of_stable_diffusion_1(sd1):
    (encoder,) = sd1.encoders
    states = hidden(encoder, "a red apple").hidden_states
    for skip in (1, 2, 3):
        one, _ = conditioned(sd1, "a red apple", clip_skip=skip)
        with torch.no_grad():
            expected = encoder.model.final_layer_norm(states[-skip])
        assert torch.equal(one.contexts[0], expected)
    plain, _ = conditioned(sd1, "a red apple")
    assert torch.equal(plain.contexts[0], hidden(encoder, "a red apple").last_hidden_state)


def test_clip_skip_of_stable_diffusion_2_counts_the_layer_that_is_not_saved(sd1):
    sd2 = TextEncoders(sd1.encoders, "sd2")
    for skip, same in ((None, 1), (1, 1), (2, 1), (3, 2), (4, 3)):
        one, _ = conditioned(sd2, "a red apple", clip_skip=skip)
        two, _ = conditioned(sd1, "a red apple", clip_skip=same)
        assert torch.equal(one.contexts[0], two.contexts[0])


def test_clip_skip_of_xl(xl):
    for skip, depth in ((None, 2), (1, 2), (2, 2)):
        one, _ = conditioned(xl, "a red apple", clip_skip=skip)
        states = [hidden(t, "a red apple").hidden_states[-depth] for t in xl.encoders]
        assert torch.equal(one.contexts[0], torch.cat(states, -1))
    deeper = TextEncoders(xl.encoders[:1], "xl")
    one, _ = conditioned(deeper, "a red apple", clip_skip=3)
    assert torch.equal(one.contexts[0], hidden(xl.encoders[0], "a red apple").hidden_states[-3])
    assert one.pooled == (None,)


@pytest.mark.parametrize("kind, most", [("sd1", 3), ("sd2", 4), ("xl", 2)])
def test_a_clip_skip_beyond_the_layers_is_an_error(sd1, xl, kind, most):
    text = TextEncoders(xl.encoders if kind == "xl" else sd1.encoders, kind)
    conditioned(text, "a", clip_skip=most)
    for skip in (most + 1, 0, -1):
        with pytest.raises(InputError, match=f"clip_skip is {skip}.*can be 1 to {most}"):
            conditioned(text, "a", clip_skip=skip)


def test_weights_multiply_and_the_mean_stays(sd1):
    """A1111's emphasis "Original"."""
    (encoder,) = sd1.encoders
    plain = hidden(encoder, "a red apple on blue").last_hidden_state
    weights = torch.ones(1, 77, 1)
    weights[0, 2] = 1.5
    weights[0, 4:6] = 0.5
    weighted = plain * weights
    one, two = conditioned(sd1, "a (red:1.5) apple (on blue:0.5)", "a (red:0)")
    assert torch.equal(one.contexts[0], weighted * (plain.mean() / weighted.mean()))
    assert one.contexts[0].mean() == pytest.approx(plain.mean().item(), rel=1e-5)
    plain = hidden(encoder, "a red").last_hidden_state
    assert not two.contexts[0][0, 2].any() and torch.allclose(two.contexts[0].mean(), plain.mean())


def test_weights_of_xl_act_on_each_tower_by_itself(xl):
    one, _ = conditioned(xl, "a (red:2)")
    expected = []
    for encoder in xl.encoders:
        plain = hidden(encoder, "a red").hidden_states[-2]
        weighted = plain.clone()
        weighted[0, 2] *= 2
        expected.append(weighted * (plain.mean() / weighted.mean()))
    assert torch.equal(one.contexts[0], torch.cat(expected, -1))
    assert torch.equal(one.pooled[0], conditioned(xl, "a red")[0].pooled[0])


def test_a_chunk_without_weights_is_left_to_the_bit(sd1):
    plain, _ = conditioned(sd1, "red " * 75 + "apple")
    weighted, _ = conditioned(sd1, "red " * 75 + "(apple:1.3)")
    assert torch.equal(plain.contexts[0][:, :77], weighted.contexts[0][:, :77])
    assert not torch.equal(plain.contexts[0][:, 77:], weighted.contexts[0][:, 77:])
    one, _ = conditioned(sd1, "a (red:1) ([apple]:1.1)")
    assert torch.equal(one.contexts[0], conditioned(sd1, "a red apple")[0].contexts[0])


def test_a_mean_that_is_chance_is_not_brought_back(tokenizer, encoder):
    """The tiny model's norm centres each token: to divide by the mean would scale by rounding."""
    text = TextEncoders((TextEncoder(tokenizer, encoder),), "sd1")
    plain = hidden(text.encoders[0], "a red apple").last_hidden_state
    weighted, _ = conditioned(text, "a (red:1.5) apple")
    assert torch.equal(weighted.contexts[0][:, [0, 1, 3]], plain[:, [0, 1, 3]])
    assert torch.equal(weighted.contexts[0][:, 2], plain[:, 2] * 1.5)


def test_negative_weights_stay_finite_and_keep_the_sign_of_the_rest(sd1):
    plain, _ = conditioned(sd1, "red " * 75)
    weighted, _ = conditioned(sd1, "(" + "red " * 75 + ":-10)")
    assert torch.isfinite(weighted.contexts[0]).all()
    assert (weighted.contexts[0][0, 0] * plain.contexts[0][0, 0] >= 0).all()


def test_a_schedule_holds_from_step_to_step(sd1):
    one, two = conditioned(sd1, "a [red:blue:3] apple", "[blue|red|]")
    assert one.ends == (3, STEPS) and two.ends == tuple(range(1, STEPS + 1))
    red, blue = (conditioned(sd1, f"a {c} apple")[0].contexts[0] for c in ("red", "blue"))
    for step in range(STEPS):
        context, pooled, words = one.at(step)
        assert torch.equal(context, red if step < 3 else blue) and pooled is None
        assert words[1] == ("red" if step < 3 else "blue", [2])
        third = ("blue", "red", "")[step % 3]
        assert torch.equal(two.at(step)[0], conditioned(sd1, third)[0].contexts[0])
    assert torch.equal(one.at(STEPS + 5)[0], blue)


def test_each_text_is_encoded_once(sd1, monkeypatch):
    calls = []
    model = sd1.encoders[0].model
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **k: calls.append(k) or forward(**k))
    one, two = conditioned(sd1, "[red|blue]", "[blue:red:2]")
    assert len(calls) == 2
    assert one.contexts[0] is one.contexts[2] is two.contexts[1]


def test_all_contexts_are_filled_with_the_empty_text_to_one_length(sd1):
    one, two = conditioned(sd1, "red BREAK apple", "[blue:" + "blue " * 200 + ":5]")
    assert {c.shape for c in (*one.contexts, *two.contexts)} == {(1, 231, 16)}
    empty = conditioned(sd1, "")[0].contexts[0]
    assert torch.allclose(one.contexts[0][:, 154:], empty, atol=1e-5)
    assert torch.allclose(two.contexts[0][:, 77:154], empty, atol=1e-5)
    red, apple = (conditioned(sd1, t)[0].contexts[0] for t in ("red", "apple"))
    assert torch.allclose(one.contexts[0][:, :154], torch.cat([red, apple], 1), atol=1e-5)


def test_gradients_are_not_kept(sd1):
    assert not conditioned(sd1, "(a:1.2)")[0].contexts[0].requires_grad


ROWS = {  # prompt: tokens in each chunk
    "": [0],
    "apple " * 75: [75],
    "apple " * 76: [75, 1],
    "apple " * 151: [75, 75, 1],
    "a BREAK a a": [1, 2],
    "BREAK a": [0, 1],
    "a BREAK": [1],
    "BREAK": [0],
    "a BREAK BREAK a": [1, 0, 1],
    "apple " * 75 + "BREAK a": [75, 1],
    # a chunk ends at its last comma if at most BACKTRACK tokens follow it
    "apple " * (75 - BACKTRACK) + ", " + "red " * 30: [76 - BACKTRACK, 30],
    "apple " * (74 - BACKTRACK) + ", " + "red " * 30: [75, 10],
    "apple " * 74 + ", " + "red ": [75, 1],
    "apple " * 75 + ", red": [75, 2],
    "apple, " * 2 + "red " * 60 + ", " + "blue " * 20: [65, 20],
    "apple " * 60 + ", " + "red " * 14: [75],
    "apple " * 60 + ", BREAK " + "red " * 80: [61, 75, 5],
    "apple " * 60 + "(,:1.2) " + "(red:1.1) " * 20: [61, 20],
}


@pytest.mark.parametrize("text", ROWS)
def test_chunks(tokenizer, text):
    rows = rows_of(tokenizer, text)
    assert [len(row) for row in rows] == ROWS[text]
    filled = 75 * (len(rows) - 1)
    assert count_tokens(tokenizer, parse(text, STEPS)) == (filled + len(rows[-1]), filled + 75)


def test_chunks_keep_the_tokens_in_order_with_their_weights(tokenizer):
    rows = rows_of(tokenizer, "a (red:1.5) apple, " * 40)
    ids = tokenizer("a red apple, " * 40, add_special_tokens=False).input_ids
    assert [e.token for row in rows for e in row] == ids
    assert [e.weight for row in rows for e in row] == [1, 1.5, 1, 1] * 40


def test_the_longest_text_is_counted(tokenizer):
    assert count_tokens(tokenizer, parse("[a:red apple:3] on", STEPS)) == (3, 75)
    assert count_tokens(tokenizer, parse("a <lora:apple:1> (red:1.3)", STEPS)) == (2, 75)
    assert count_tokens(tokenizer, parse("a \ud800 b", STEPS))[1] == 75


def test_a_window_of_another_size(tiny_model):
    small = CLIPTokenizer.from_pretrained(tiny_model / "tokenizer", model_max_length=12)
    assert [len(row) for row in rows_of(small, "apple " * 25)] == [10, 10, 5]
    assert count_tokens(small, parse("apple " * 25, STEPS)) == (25, 30)
    text = TextEncoders((TextEncoder(small, random_encoder(small, 16, 1)),), "sd1")
    assert conditioned(text, "apple " * 25)[0].contexts[0].shape == (1, 36, 16)


def test_padding_is_the_tokenizers_own(xl):
    seen = []
    for encoder in xl.encoders:
        encoder.model.get_input_embeddings().register_forward_hook(
            lambda module, args, output: seen.append(args[0]), always_call=True
        )
    conditioned(xl, "a", "a")
    for encoder in xl.encoders:
        encoder.model.get_input_embeddings()._forward_hooks.clear()
    first, second = seen
    end, mark = xl.encoders[0].tokenizer.eos_token_id, xl.encoders[1].tokenizer.pad_token_id
    assert first[0, 2:].tolist() == [end] * 75
    assert second[0, 2:].tolist() == [end, *[mark] * 74] and mark != end


def test_words_stand_where_their_tokens_are(sd1):
    one, _ = conditioned(sd1, "a (red) xyz BREAK 苹果")
    assert one.word_spans[0] == (
        ("a", [1]),
        ("red", [2]),
        ("xyz", [3, 4, 5]),
        ("苹", [78, 79, 80]),
        ("果", [81, 82, 83]),
    )
    torn, _ = conditioned(sd1, "a " * 74 + "xyz")
    assert torn.word_spans[0][-1] == ("xyz", [75, 78, 79])


def test_an_embedding_stands_for_its_name(sd1):
    (encoder,) = sd1.encoders
    table = encoder.model.get_input_embeddings().weight.detach()
    red, apple = (encoder.tokenizer.convert_tokens_to_ids(f"{w}</w>") for w in ("red", "apple"))
    both = Embedding("thing", (table[[red, apple]].clone(),))
    one, two = conditioned(sd1, "a (Thing:1.2), things", "blue-THING", embeddings={"thing": both})
    plain, negative = conditioned(sd1, "a (red apple:1.2), things", "blue-red apple")
    assert torch.equal(one.contexts[0], plain.contexts[0])
    assert torch.equal(two.contexts[0], negative.contexts[0])
    assert one.word_spans[0][:2] == (("a", [1]), ("thing", [2, 3]))
    assert not encoder.model.get_input_embeddings()._forward_hooks
    parsed = parse("a thing", STEPS)
    assert count_tokens(encoder.tokenizer, parsed, {"thing": both}) == (3, 75)


def test_an_encoder_whose_weights_lie_elsewhere_says_the_same(tokenizer):
    from accelerate import cpu_offload

    model = random_encoder(tokenizer, 16, 3)
    text = TextEncoders((TextEncoder(tokenizer, model, torch.device("cpu")),), "sd1")
    options = {"clip_skip": 2, "embeddings": {"x": Embedding("x", (torch.rand(2, 16),))}}
    before, _ = conditioned(text, "a (x:1.2)", **options)
    cpu_offload(model, torch.device("cpu"))
    assert model.device.type == "meta"
    after, _ = conditioned(text, "a (x:1.2)", **options)
    assert torch.equal(after.contexts[0], before.contexts[0])


def test_an_embedding_of_xl_speaks_to_both_towers(xl):
    vectors = []
    for encoder in xl.encoders:
        number = encoder.tokenizer.convert_tokens_to_ids("apple</w>")
        vectors.append(encoder.model.get_input_embeddings().weight.detach()[[number]])
    one, _ = conditioned(xl, "a new", embeddings={"new": Embedding("new", tuple(vectors))})
    plain, _ = conditioned(xl, "a apple")
    assert torch.equal(one.contexts[0], plain.contexts[0])
    assert torch.equal(one.pooled[0], plain.pooled[0])


@pytest.mark.parametrize("widths, said", [((8,), "8"), ((16,), "16"), ((24, 8), "24 and 8")])
def test_an_embedding_of_another_width_is_left_as_words(xl, widths, said):
    """One that fits one tower of two does not fit."""
    embeddings = {
        "apple": Embedding("apple", tuple(torch.ones(2, w) for w in widths)),
        "unused": Embedding("unused", (torch.ones(2, 8),)),
    }
    one, _, warnings = encode_prompts(xl, parse("a apple", 5), parse("", 5), embeddings=embeddings)
    assert warnings == [
        f"The embedding apple has width {said}, this model's text encoder takes 16 and 24; it is"
        " left as plain words."
    ]
    assert torch.equal(one.contexts[0], conditioned(xl, "a apple")[0].contexts[0])


@pytest.mark.parametrize(
    "count, lengths", [(10, [70, 10]), (5, [75]), (75, [70, 75]), (80, [75, 75])]
)
def test_an_embedding_stands_in_one_chunk_if_it_fits(sd1, count, lengths):
    embeddings = {"big": Embedding("big", (torch.rand(count, 16),))}
    (part,) = parse("apple " * 70 + "big", STEPS).parts
    rows = chunks(sd1.encoders[0].tokenizer, part.segments, embeddings)
    assert [len(row) for row in rows] == lengths
    vectors = [e.vector for row in rows for e in row if e.embedding]
    assert vectors == list(range(count))
    one, _ = conditioned(sd1, "apple " * 70 + "big", embeddings=embeddings)
    assert torch.isfinite(one.contexts[0]).all()
    at = [i * 77 + p + 1 for i, row in enumerate(rows) for p, e in enumerate(row) if e.embedding]
    assert one.word_spans[0][-1] == ("big", at)
