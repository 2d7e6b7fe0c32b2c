"""Build a model's networks from its manifest: first the plan of every tensor, then the tensors.

Networks are built on the meta device, planned and checked; then each weights file is opened once
and its tensors are copied, so that the file may be replaced while the model serves.
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
    """A network without weights, and where each of its tensors lies; nothing is read yet."""

    component: ComponentFiles
    module: Any  # of diffusers or transformers, on the meta device
    tensors: list[PlannedTensor]


def plan_network(component: ComponentFiles) -> PlannedNetwork:
    """Return the network and its plan; InputError for what its files lack or have wrong."""
    try:
        module = build_empty(component.name, component.config)
    except Exception as error:  # a configuration has more ways to be wrong than can be listed
        reason = short(str(error).strip() or repr(error))
        raise InputError(f"{short(component.place)} cannot be loaded: {reason}") from None
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    return PlannedNetwork(component, module, plan_tensors(component, shapes))


def build_empty(name: str, config: dict[str, Any]) -> Any:
    """Return the network `name` of this configuration, its parameters on the meta device."""
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
    """Return the networks with their weights, on the CPU, in evaluation mode, without gradients.

    dtypes: of each network. InputError where a file is not what it was when it was opened.
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
    """Return copies of a file's tensors, by network and name; the file is opened once."""
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
