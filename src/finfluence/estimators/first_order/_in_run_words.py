"""What can be wrong with a loop that is followed while it runs, in words."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, DataError, NotSupportedError, TrainingError, explain


def check_not_compiled(model: nn.Module) -> None:
    """Raise if the model, or a part of it, is compiled: compiled code calls no layer by itself.

    Raises
    ------
    NotSupportedError
    """
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise NotSupportedError(
                explain(
                    "a model whose layers are called one by one",
                    f"compiled code at '{name or type(model).__name__}'",
                    "torch.compile fuses layers, and their inputs and gradients are not seen",
                    "follow the model before it is compiled, or record the loop with fi.Tape.record",
                )
            )


def check_one_process() -> None:
    """Raise if the training runs in several processes.

    Raises
    ------
    NotSupportedError
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    count = torch.distributed.get_world_size()
    if count > 1:
        raise NotSupportedError(
            explain(
                "a training in one process",
                f"a group of {count}",
                "each process sees its own rows, and the gradient that the optimiser gets is of all of them",
                "record the loop with fi.Tape.record(…, processes='all'), and use method='in-run-shapley'",
            )
        )


def checked_weights(weights: Sequence[float] | None, parts: int) -> list[float]:
    """Return a weight for each micro-batch.

    Returns
    -------
    list of float

    Raises
    ------
    ConfigError
        Another number of weights.
    """
    if weights is None:
        return [1.0 / parts] * parts
    given = [float(w) for w in weights]
    if len(given) != parts:
        raise ConfigError(
            explain(
                f"one weight for each of {parts} micro-batches",
                f"{len(given)}",
                "weights are factors on mean losses, not on rows",
                "pass for instance ids=[first, second], weights=[0.5, 0.5]",
            )
        )
    return given


def dealt_passes(passes: list[int], parts: int, step: int) -> list[list[int]]:
    """Return the forward passes of each micro-batch: as many for each, in order.

    Returns
    -------
    list of lists

    Raises
    ------
    NotSupportedError
        They cannot be dealt out.
    """
    if not passes:
        return [[] for _ in range(parts)]
    if len(passes) % parts:
        raise NotSupportedError(
            explain(
                f"as many forward passes of the model for each of {parts} micro-batches",
                f"{len(passes)} with a gradient at step {step}",
                "the loss calls parts of the model instead of the model, or a backward pass was left out",
                "call the model itself in the loss, and name the rows of every backward pass: "
                "run.step(ids=[ids_1, ids_2])",
            )
        )
    each = len(passes) // parts
    return [passes[k * each : (k + 1) * each] for k in range(parts)]


def random_beside(left: list[str]) -> NotSupportedError:
    """Return the error of parameters without factors beside random numbers.

    Returns
    -------
    NotSupportedError
    """
    return NotSupportedError(
        explain(
            "layers that give the gradients of rows in factors, where the loss draws random numbers",
            f"none that do for {_listed(left)}",
            "such a parameter needs a pass over the batch of its own, which would draw another dropout mask",
            "set dropout to 0, freeze these parameters, or record the loop with fi.Tape.record and use "
            "method='in-run-shapley'",
        )
    )


def varying() -> DataError:
    """Return the error of rows that change, where they must be read again.

    Returns
    -------
    DataError
    """
    return DataError(
        explain(
            "the batch as the loop saw it, where the data set augments at random and parameters have no factors",
            "ids alone",
            "their row gradients are taken in a pass of its own over the same fields",
            "pass run.step(ids=…, batch=batch)",
        )
    )


def other_gradient(wrong: tuple[str, float, float], step: int) -> TrainingError:
    """Return the error of a gradient that is not the sum over its rows.

    Returns
    -------
    TrainingError
    """
    name, measured, summed = wrong
    return TrainingError(
        explain(
            "the gradient that the optimiser gets to be the sum of what the backward passes of its step left",
            f"at step {step}, along a random combination of the queries' gradients, {measured:.6g} in '{name}' and "
            f"{summed:.6g} from its rows",
            "the gradient is clipped or changed before the step, a penalty is added to the loss, the parameter is used "
            "outside its layer, or gradients of an earlier backward pass were not set to zero",
            "pass clip_norm=… as the loop clips, write the penalty as weight decay, call optimizer.zero_grad() before "
            "each step; or record the loop with fi.Tape.record and use method='in-run-shapley'",
        )
    )


def other_rows_than_named(found: Tensor, true: Tensor, step: int) -> TrainingError:
    """Return the error of rows that are not those named.

    Returns
    -------
    TrainingError
    """
    ratios = (found / true).tolist()
    alike = max(ratios) - min(ratios) <= 1e-2 * abs(ratios[0])
    cause = (
        f"the loop's loss is {ratios[0]:.4g} times the mean over these rows (a sum, or class weights)"
        if alike
        else "ids of another batch, a model in another mode than when it trained, or another loss than the loop's"
    )
    return TrainingError(
        explain(
            "rows whose gradients, taken by themselves from the data, are those of the step",
            f"{found[0]:.6g} and {true[0]:.6g} for the first row of step {step}, along a random combination of the "
            "queries' gradients",
            cause,
            "pass weights=[…], what each micro-batch's mean loss is multiplied by: [len(ids)] for a sum"
            if alike
            else "pass the ids of the batch just trained on, the loss that the loop descends, and batch= if the data "
            "set augments",
        )
    )


def unnamed(step: int) -> TrainingError:
    """Return the error of a step whose rows were not named.

    Returns
    -------
    TrainingError
    """
    return TrainingError(
        explain(
            "run.step(ids=…) after each step of the optimiser",
            f"another step, or the end, before the rows of step {step} were named",
            "run.step is called in some branches of the loop only",
            "call run.step(ids=…) right after optimizer.step()",
        )
    )


def no_step(step: int) -> TrainingError:
    """Return the error of rows named without a step.

    Returns
    -------
    TrainingError
    """
    return TrainingError(
        explain(
            "a step of the optimiser before each run.step(ids=…)",
            f"none since step {step - 1}" if step else "none",
            "run.step comes before optimizer.step() or twice, or a gradient scaler skipped the step",
            "call run.step once, after optimizer.step(); pass scaler=… if the loop has one",
        )
    )


def no_steps() -> ConfigError:
    """Return the error of a run without steps.

    Returns
    -------
    ConfigError
    """
    return ConfigError(
        explain(
            "a training that was followed",
            "no step",
            "run.finish() was called before the loop, or run.step(ids=…) never was",
            "call run.step(ids=…) after each optimizer.step(), and run.finish() after the last",
        )
    )


def unreadable_step(step: int, error: Exception) -> NotSupportedError:
    """Return the error of a step that could not be read.

    Returns
    -------
    NotSupportedError
    """
    found = NotSupportedError(
        explain(
            "a step of the optimiser that can be read",
            f"{type(error).__name__} at step {step}: {str(error).splitlines()[0] if str(error) else ''}",
            "parameters or options changed in a way that is not expected",
            "record the loop with fi.Tape.record, and use method='in-run-shapley'",
        )
    )
    found.__cause__ = error
    return found


def other_rows(named: int, seen: int) -> TrainingError:
    """Return the error of layers that have seen other rows than were named.

    Returns
    -------
    TrainingError
    """
    return TrainingError(
        explain(
            f"layers that have seen the {named} rows named",
            f"{seen} entries in a layer",
            "ids of another batch were passed, or of several micro-batches in one list",
            "pass the ids of each backward pass: run.step(ids=[ids_1, ids_2])",
        )
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
