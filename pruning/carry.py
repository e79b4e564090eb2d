"""What training keeps beside the weights follows the channels: optimizer states and averages of weights.

A state of a parameter's shape loses the entries that the parameter lost, so the next step is the one that the
unpruned module would take with the same channels silenced, for every optimizer that treats entries one by one (SGD,
Adam, AdamW, RMSprop, Adagrad ...). A state of another shape than the parameter's mixes entries, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

import torch
from torch import Tensor, nn

from pruning.exact import Pruned
from pruning.places import PruneError


def carry_optimizer(optimizer: torch.optim.Optimizer, before: nn.Module, pruned: Pruned) -> torch.optim.Optimizer:
    """An optimizer of the same kind, settings and state for `pruned.network`; `before` is what was pruned.

    A bias that pruning added has no state yet, and joins the group of its layer's weight. Raises `PruneError` for a
    parameter of the optimizer that `before` does not have, and for a state that mixes entries. The one given stays.
    """
    names = {id(p): name for name, p in before.named_parameters()}
    after = dict(pruned.network.named_parameters())
    groups, states = [], dict[str, dict[str, object]]()
    for group in optimizer.param_groups:
        found = []
        for parameter in group["params"]:
            name = names.get(id(parameter))
            if name is None or name not in after:
                raise PruneError(
                    f"The optimizer must hold parameters of the module that was pruned, but one of shape "
                    f"{tuple(parameter.shape)} is none of them{f', now, under the name {name}' if name else ''}."
                )
            found.append(name)
            bias = f"{name.removesuffix('weight')}bias"
            if name.endswith("weight") and bias in after and bias not in names.values():
                found.append(bias)
            states[name] = {
                key: _state(name, key, value, parameter, pruned)
                for key, value in optimizer.state.get(parameter, {}).items()
            }
        groups.append({**group, "params": [after[name] for name in found]})
    taken = signature(type(optimizer).__init__).parameters  # AdamW's defaults hold what it does not take
    carried = type(optimizer)(groups, **{key: value for key, value in optimizer.defaults.items() if key in taken})
    for name, state in states.items():
        if state:
            carried.state[after[name]] = state
    return carried


def carry_average(average: Mapping[str, Tensor], before: nn.Module, pruned: Pruned) -> dict[str, Tensor]:
    """A state dict for `pruned.network` from an average of the weights of `before`, such as an EMA's state dict.

    Entries leave as they left the weights; what folding constants changed in the weights is changed in the average
    by as much. So an average equal to the weights becomes the pruned weights.
    """
    old, new = before.state_dict(), pruned.network.state_dict()
    carried = {}
    for name, tensor in new.items():
        if name not in average or name not in old:
            carried[name] = tensor.clone()  # a bias that pruning added, the channels of a selection
            continue
        if average[name].shape != old[name].shape:
            raise PruneError(
                f"An average must have the shapes of the module that was pruned, but {name} is "
                f"{tuple(average[name].shape)}, where {tuple(old[name].shape)} was expected."
            )
        kept = pruned.cuts.narrowed(name, average[name]).clone()
        if tensor.is_floating_point():
            kept = kept + (tensor - pruned.cuts.narrowed(name, old[name]).to(tensor)).to(kept)
        carried[name] = kept
    return carried


def _state(name: str, key: str, value: object, parameter: Tensor, pruned: Pruned) -> object:
    if not isinstance(value, Tensor) or value.numel() == 1:
        return value.clone() if isinstance(value, Tensor) else value
    if value.shape != parameter.shape:
        raise PruneError(
            f"An optimizer's state can follow the channels where it has its parameter's shape, but {key} of {name} is "
            f"{tuple(value.shape)}, not {tuple(parameter.shape)}: make a new optimizer."
        )
    return pruned.cuts.narrowed(name, value).clone()
