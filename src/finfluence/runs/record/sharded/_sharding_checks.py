"""Which sharded models can be recorded: those of fully_shard, over one mesh of all processes."""

from typing import Any

import torch
from torch import nn

from finfluence.distributed import Processes
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.runs.record.sharded._shards import is_sharded
from finfluence.runs.record.sharded._unsharded import own_class


def check_sharding(model: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes) -> None:
    """Raise unless the model is plain, or all that is trained is sharded by fully_shard over these processes.

    Raises
    ------
    NotSupportedError
        FullyShardedDataParallel, tensor parallelism, hybrid or mixed sharding, other precisions, offloading.
    ConfigError
        Sharded parameters with processes="one", or as they are gathered for a forward pass.
    """  # noqa: DOC501 - made by a function
    for name, module in model.named_modules():
        if type(module).__name__ == "FullyShardedDataParallel":
            raise _flattened(name)
    held: dict[int, Any] = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    named: dict[str, Any] = dict(model.named_parameters())
    own = {id(p) for p in named.values()}
    if any(is_sharded(p) for p in held.values() if id(p) not in own) and any(
        own_class(m) is not None for m in model.modules()
    ):
        raise _gathered(next((name for name, p in named.items() if not is_sharded(p)), next(iter(named))))
    if not any(map(is_sharded, named.values())):
        return
    for name, parameter in named.items():
        if not is_sharded(parameter):
            if id(parameter) in held and parameter.requires_grad:
                raise _not_averaged(name)
            continue
        if processes.size == 1 and parameter.device_mesh.size() > 1:
            raise _alone(name, parameter.device_mesh.size())
        check_parts(name, parameter, model, processes)
    for name, module in model.named_modules():
        _check_precision(name, module)


def refuse_sharded(model: nn.Module) -> None:
    """Raise unless every parameter is plain, as those of a model that fully_shard has not seen.

    Raises
    ------
    ConfigError
        A parameter is sharded.
    """
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            raise ConfigError(
                explain(
                    "a plain model, to open a tape with",
                    f"one with '{name}' sharded over processes",
                    "the model was passed through fully_shard; the tape holds whole states",
                    "pass the model as it is made, before fully_shard",
                )
            )


def check_parts(name: str, parameter: Any, model: nn.Module, processes: Processes) -> None:
    """Raise unless the parameter is cut along its first dimension, by fully_shard, over all processes, in place."""
    mesh, placements = parameter.device_mesh, parameter.placements
    above = [name.rpartition(".")[0]]
    while above[-1]:
        above.append(above[-1].rpartition(".")[0])
    by_rows = len(placements) == 1 and type(placements[0]).__name__ == "Shard" and placements[0].dim == 0
    managed = any(own_class(model.get_submodule(path)) is not None for path in above)
    order = mesh.mesh.flatten().tolist() == list(range(processes.size))
    if not (by_rows and managed and order):
        raise NotSupportedError(
            explain(
                "parameters that fully_shard cut along their first dimension, over all processes",
                f"'{name}' placed as {tuple(placements)} on a mesh of shape {tuple(mesh.mesh.shape)}",
                "tensor parallelism, hybrid sharding (a mesh of two dimensions), a mesh of some processes, or "
                "shard_placement_fn",
                "shard with fully_shard over one mesh of all processes, or train with DistributedDataParallel",
            )
        )
    if parameter.device.type != mesh.device_type:
        raise NotSupportedError(
            explain(
                f"parameters on the device of their mesh ({mesh.device_type})",
                f"'{name}' on {parameter.device.type}",
                "fully_shard was called with CPUOffloadPolicy",
                "leave offload_policy out while recording",
            )
        )


def _check_precision(name: str, module: Any) -> None:
    own = own_class(module)
    if own is None:
        return
    policy = module._get_fsdp_state()._mp_policy
    kinds = {p.dtype for p in module.parameters()}
    for option in ("param_dtype", "reduce_dtype", "output_dtype"):
        dtype = getattr(policy, option, None)
        if dtype is not None and kinds != {dtype}:
            raise NotSupportedError(
                explain(
                    "fully_shard without a policy of mixed precision",
                    f"{option}={dtype} at '{name or own.__name__}'",
                    "replay calls the plain model, which computes in the parameters' own precision",
                    "leave mp_policy out, and put torch.autocast inside the loss that the loop and Tape.record use",
                )
            )


def _flattened(name: str) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "parameters sharded one by one, as torch.distributed.fsdp.fully_shard does",
            f"FullyShardedDataParallel at '{name or 'the model itself'}'",
            "it joins parameters to flat ones, which are cut anywhere",
            "use fully_shard, its successor, or DistributedDataParallel",
        )
    )


def _gathered(name: str) -> ConfigError:
    return ConfigError(
        explain(
            "a sharded model with its parts in place",
            f"'{name}' gathered, while the optimiser holds its parts",
            "a forward pass without a backward pass, such as an evaluation, leaves parameters gathered",
            "call model.reshard() (and that of each module passed to fully_shard) before Tape.record",
        )
    )


def _not_averaged(name: str) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "every trained parameter to be sharded, where some are",
            f"'{name}' whole in every process",
            "fully_shard was called on some modules only, or with ignored_params: nobody averages its gradient",
            "call fully_shard on the whole model last, or freeze that parameter",
        )
    )


def _alone(name: str, size: int) -> ConfigError:
    return ConfigError(
        explain(
            "processes='all' for a model whose parameters are sharded",
            f"'{name}' sharded over {size} processes, and processes='one'",
            "each process holds a part of every state, and rows of its own",
            "pass processes='all' to Tape.record in every process, and call tape.gather() after the last step",
        )
    )
