"""Textual inversion files of every format, damaged ones, and how a name is found in a text."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from pipeline import InputError
from pipeline.prompt.embeddings import (
    MAX_VECTORS,
    Embedding,
    insert_vectors,
    read_embedding,
    split_at_names,
)

FORMATS = {
    "A1111 and kohya": {"emb_params": (3, 768)},
    "diffusers": {"<cat-toy>": (2, 768)},
    "diffusers, one vector": {"<cat-toy>": (1024,)},
    "Stable Diffusion XL": {"clip_g": (4, 1280), "clip_l": (4, 768)},
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_formats(tmp_path, kind, dtype):
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in FORMATS[kind].items()}
    save_file(tensors, tmp_path / "my style.v2.safetensors")
    embedding = read_embedding(tmp_path / "my style.v2.safetensors")
    assert embedding.name == "my style.v2"
    expected = [tensors[name].float() for name in sorted(tensors, reverse=True)]
    assert len(embedding.vectors) == len(expected)
    for vectors, tensor in zip(embedding.vectors, expected, strict=True):
        assert vectors.dtype == torch.float32
        assert torch.equal(vectors, tensor.reshape(-1, tensor.shape[-1]))
    assert embedding.widths == ((768, 1280) if "XL" in kind else (expected[0].shape[-1],))
    assert embedding.count == (1 if expected[0].ndim == 1 else len(expected[0]))


BAD = {
    "two tensors": ({"a": torch.ones(1, 8), "b": torch.ones(1, 8)}, "it holds 2 tensors"),
    "one of XL": ({"clip_l": torch.ones(1, 8), "x": torch.ones(1, 8)}, "it holds 2 tensors"),
    "none": ({}, "it holds 0 tensors"),
    "a picture": ({"emb_params": torch.ones(2, 3, 8)}, r"is F32 \[2, 3, 8\]"),
    "a number": ({"emb_params": torch.ones(())}, r"is F32 \[\]"),
    "no vectors": ({"emb_params": torch.ones(0, 8)}, r"is F32 \[0, 8\]"),
    "no width": ({"emb_params": torch.ones(2, 0)}, r"is F32 \[2, 0\]"),
    "too many": ({"x": torch.ones(MAX_VECTORS + 1, 2)}, "n from 1 to 300"),
    "too wide": ({"x": torch.ones(1, 10_000)}, r"is F32 \[1, 10000\]"),
    "numbers": ({"x": torch.ones(1, 8, dtype=torch.int64)}, "is I64"),
    "nan": ({"x": torch.tensor([[1.0, float("nan")]])}, "x holds values that are not finite"),
    "infinite": ({"x": torch.tensor([[1.0, float("inf")]])}, "not finite"),
    "XL of two lengths": (
        {"clip_l": torch.ones(1, 8), "clip_g": torch.ones(2, 8)},
        "clip_l has 1 vectors and clip_g 2",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_told_in_one_sentence(tmp_path, kind):
    tensors, sentence = BAD[kind]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=sentence) as error:
        read_embedding(tmp_path / "x.safetensors")
    assert str(error.value).startswith("x.safetensors") and str(error.value).isprintable()


def test_what_is_no_safetensors_file(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        read_embedding(path)
    torch.save({"string_to_param": {"*": torch.ones(1, 8)}}, path)
    with pytest.raises(InputError, match="pickle"):
        read_embedding(path)
    save_file({"emb_params": torch.ones(2, 8)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="truncated"):
        read_embedding(path)
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**50, 8], "data_offsets": [0, 4]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * 4)
    with pytest.raises(InputError, match="damaged"):
        read_embedding(path)


SPLIT = {
    "a cat": [("a ", 0), ("cat", 1)],
    "CAT, Cat(cat)": [("cat", 1), (", ", 0), ("cat", 1), ("(", 0), ("cat", 1), (")", 0)],
    "cats concat cat2 _cat 红cat": [("cats concat cat2 _cat 红cat", 0)],
    "cat toy": [("cat toy", 1)],
    "bad-hands-5 bad-hands": [("bad-hands-5", 1), (" bad-hands", 0)],
    "a<x>b <X>": [("a<x>b ", 0), ("<x>", 1)],
    "a.c abc": [("a.c", 1), (" abc", 0)],
    "红苹果 红苹": [("红苹果", 1), (" 红苹", 0)],
    "": [],
}


@pytest.mark.parametrize("text", SPLIT)
def test_names_are_whole_words_in_any_case_longest_first(text):
    names = ["cat", "cat toy", "bad-hands-5", "<x>", "a.c", "红苹果", ""]
    assert split_at_names(text, names) == [(piece, bool(named)) for piece, named in SPLIT[text]]
    assert split_at_names(text, []) == [(text, False)]


def test_letters_that_only_look_alike_in_another_case_do_no_harm():
    assert split_at_names("ſtar K", ["star", "k"]) == [("star", True), (" ", False), ("k", True)]


def test_which_vectors_fit_which_encoders():
    narrow, wide = torch.zeros(2, 8), torch.zeros(2, 12)
    assert Embedding("x", (narrow,)).fit((8,)) == (narrow,)
    assert Embedding("x", (narrow,)).fit((12,)) is None
    assert Embedding("x", (narrow,)).fit((8, 12)) is None
    found = Embedding("x", (narrow, wide)).fit((12, 8))
    assert found[0] is wide and found[1] is narrow
    alike = Embedding("x", (torch.zeros(1, 8), torch.ones(1, 8)))
    assert alike.fit((8, 8)) is alike.vectors


def test_another_call_at_the_same_time_hears_nothing_of_it():
    class Model:
        table = torch.nn.Embedding(4, 3)

        def get_input_embeddings(self):
            return self.table

    model, ids, other = Model(), torch.tensor([[0, 1]]), torch.tensor([[0, 1]])
    plain = model.table(ids)
    with insert_vectors(model, ids, [(0, 1, torch.ones(3))]):
        assert torch.equal(model.table(other), plain)
        changed = model.table(ids.view(-1, 2))
    assert torch.equal(changed[0, 1], torch.ones(3)) and torch.equal(changed[0, 0], plain[0, 0])
    assert torch.equal(model.table(ids), plain)
    with pytest.raises(KeyError), insert_vectors(model, ids, [(0, 1, torch.ones(3))]):
        raise KeyError
    assert not model.table._forward_hooks
