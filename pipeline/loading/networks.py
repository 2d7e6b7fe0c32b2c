"""Build the networks of a model from its manifest, and read their weights.

Networks are built on PyTorch's meta device, which allocates no memory, and every tensor is located
in the files and checked. Only then each weights file is opened, once, and its tensors are copied,
so that the file may be replaced while the loaded model is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, short
from ..model_files.diffusers_folder import COMPONENTS
from ..model_files.file_reader import WeightsFile
from ..model_files.tensor_plan import TEXT_ENCODERS, ComponentFiles, PlannedTensor, plan_tensors

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PlannedNetwork:
    """A network whose weights are not read yet, and from where to read each of its tensors.

    component: its files and configuration. module: the network of diffusers or transformers, on the
    meta device.
    """

    component: ComponentFiles
    module: Any
    tensors: list[PlannedTensor]


def plan_network(component: ComponentFiles) -> PlannedNetwork:
    """Build a network without weights and find each of its tensors in its files.

    Raises InputError where its configuration is invalid, or a tensor is missing or does not fit.
    """
    try:
        module = build_empty(component.name, component.config)
    except Exception as error:  # a configuration has more ways to be wrong than can be listed
        reason = short(str(error).strip() or repr(error))
        raise InputError(f"{short(component.place)} cannot be loaded: {reason}") from None
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    return PlannedNetwork(component, module, plan_tensors(component, shapes))


def build_empty(name: str, config: dict[str, Any]) -> Any:
    """Build a network of diffusers or transformers whose parameters are on the meta device.

    So no memory is allocated for weights. name: "unet", "vae", "text_encoder" or "text_encoder_2".
    config: its config.json. Raises what diffusers and transformers raise for an invalid
    configuration, of any class.
    """
    from accelerate import init_empty_weights  # type: ignore[import-untyped]  # ships no types

    with init_empty_weights():
        if name in TEXT_ENCODERS:
            import transformers

            cls = getattr(transformers, COMPONENTS[name].classes[0])
            return cls(transformers.CLIPTextConfig.from_dict(config))
        import diffusers

        return getattr(diffusers, COMPONENTS[name].classes[0]).from_config(config)


def load_weights(
    networks: dict[str, PlannedNetwork], dtypes: dict[str, torch.dtype]
) -> dict[str, Any]:
    """Read the weights of a model's networks and return the networks, ready to run.

    networks, dtypes and the result: by name ("unet", "vae", ...); dtypes: those to convert the
    weights to. The returned modules are on the CPU, in evaluation mode and without gradients.
    Raises InputError where a file was changed since its header was checked, or cannot be read.
    """
    states: dict[str, dict[str, torch.Tensor]] = {name: {} for name in networks}
    files = dict.fromkeys(t.file for n in networks.values() for t in n.tensors)
    for file in files:
        wanted = {
            name: [t for t in network.tensors if t.file is file]
            for name, network in networks.items()
        }
        for name, tensors in _read_tensors(file, wanted, dtypes).items():
            states[name] |= tensors
    for name, network in networks.items():
        try:
            network.module.load_state_dict(states.pop(name), assign=True)
        except RuntimeError:
            place = short(network.component.place)
            raise InputError(f"{place} was changed while it was loaded; try again.") from None
        network.module.eval().requires_grad_(False)
    return {name: network.module for name, network in networks.items()}


def _read_tensors(
    file: WeightsFile, wanted: dict[str, list[PlannedTensor]], dtypes: dict[str, torch.dtype]
) -> dict[str, dict[str, torch.Tensor]]:
    """Read tensors of one weights file; return them as {network: {tensor name: tensor}}.

    wanted: from network name ("unet") to the tensors to read. dtypes: from network name to the
    dtype to convert to. The tensors are copies, so the file is closed afterwards. Raises InputError
    where it was changed since its header was checked, or cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    file.check_unchanged()
    try:
        with safe_open(file.path, framework="pt") as opened:
            if set(opened.keys()) != file.header.tensors.keys():
                raise InputError(f"{short(file.path)} was changed while it was loaded; try again.")
            found = {
                name: {
                    t.key: t.stored.take(opened.get_tensor(t.stored.name))
                    .to(dtypes[name], copy=True)
                    .contiguous()
                    for t in tensors
                }
                for name, tensors in wanted.items()
            }
    except (SafetensorError, OSError) as error:
        reason = short(str(error).strip() or repr(error))
        raise InputError(f"{short(file.path)} cannot be loaded: {reason}") from None
    file.check_unchanged()
    return found
