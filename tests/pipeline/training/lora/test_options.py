"""Options of a LoRA training that cannot be used: one sentence, and nothing is written."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.errors import InputError
from pipeline.training.lora import options

BAD = {
    "prompt": ({"prompt": " \n"}, "The prompt is empty"),
    "slash": ({"name": "../zog"}, "cannot be a LoRA's name"),
    "colon": ({"name": "zog:1>"}, "cannot be a LoRA's name"),
    "hidden": ({"name": "_zog"}, "cannot be a LoRA's name"),  # the library passes over it
    "no name": ({"name": ""}, "cannot be a LoRA's name"),
    "device": ({"name": "CON"}, "Windows has a device of that name"),
    "device with an ending": ({"name": "lpt3.striped"}, "Windows has a device of that name"),
    "device with a space": ({"name": "Nul .x"}, "Windows has a device of that name"),
    "device with a raised digit": ({"name": "com²"}, "Windows has a device of that name"),
    "dot at the end": ({"name": "zog."}, "cannot be a LoRA's name"),
    "space at the end": ({"name": "zog "}, "cannot be a LoRA's name"),
    "line break": ({"name": "zog\n"}, "cannot be a LoRA's name"),
    "too many bytes": ({"name": "𝐳" * 60}, "240 bytes, and a file's name at most 200"),
    "rank": ({"rank": 0}, "rank must be 1 to 256, not 0"),
    "rate": ({"rate": float("nan")}, "rate must be 1e-07 to 1, not nan"),
    "size": ({"size": 100}, "size must be a multiple of 16"),
    "layers": ({"layers": "some"}, "layers must be one of attention, blocks, all, not some"),
    "naming": ({"naming": "lyco"}, "naming must be one of peft, kohya"),
    "none": ({"images": []}, "There is no picture to learn from"),
    "lora": ({"prompt": "a <lora:zog:1>"}, None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(tiny, name, make_options, run):
    given, sentence = BAD[name]
    if sentence is None:
        run(tiny, make_options(steps=1))
        given, sentence = given | {"name": "second"}, "A LoRA learns on the bare model"
    with pytest.raises(InputError) as error:
        run(tiny, make_options(**given))
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert not Path("models/lora/second.safetensors").exists()
    assert name == "lora" or not Path("runs").exists()


def test_a_name_that_is_taken(tiny, make_options, run):
    run(tiny, make_options(steps=1))
    with pytest.raises(InputError, match="runs/lora/zog holds a run; resume it, or choose"):
        run(tiny, make_options(steps=2))
    Path("runs").rename("gone")
    for resume in (False, True):  # nothing to go on from: the file is not overwritten
        with pytest.raises(InputError, match=r"zog\.safetensors is there; choose another name"):
            run(tiny, make_options(steps=2, resume=resume))


@pytest.mark.parametrize(
    "name", ["CONNIE", "com", "com10", "aux2", "a.con", "条纹怪", "Zog 2.1-b_c", "z" * 64]
)
def test_names_that_every_system_can_write(name):
    options.check_file_name(name)


def test_a_name_in_another_case_is_taken_too(tiny, make_options, run):
    run(tiny, make_options(steps=1))
    with pytest.raises(InputError, match=r"The name ZOG is taken: models/lora/zog\.safetensors"):
        run(tiny, make_options(name="ZOG"))


@pytest.mark.quick
def test_a_model_that_cannot_be_trained(tiny, tiny_model, make_options, run):
    with pytest.raises(InputError, match="loaded for little memory"):
        hooked = replace(tiny, unet=torch.nn.Linear(1, 1))
        hooked.unet._hf_hook = True
        run(hooked, make_options())
    odd = replace(tiny, scheduler_config=tiny.scheduler_config | {"prediction_type": "sample"})
    with pytest.raises(InputError, match="predicts sample"):
        run(odd, make_options())
