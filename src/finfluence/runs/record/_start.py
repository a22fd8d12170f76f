"""Begin to record a training loop."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finfluence.grads import Layout, RowLoss
from finfluence.runs.checkpoints import ThinningCheckpoints
from finfluence.runs.describe import (
    DatasetRows,
    Rows,
    RowSource,
    as_rows,
    check_loss,
    check_model,
    check_parameters,
    rows_checksums,
    varies,
)
from finfluence.runs.describe.optimizers import options_of, rule_of, steps_done
from finfluence.runs.record._continue import check_alone, go_on
from finfluence.runs.record._header import check_new, data_hash
from finfluence.runs.record._options import RecordOptions
from finfluence.runs.record._recorder import Recorder, Watch
from finfluence.runs.record._try_out import check_clipping, check_module, try_out
from finfluence.runs.record.sharded import Shards, check_sharding, is_sharded, made_whole, unsharded
from finfluence.runs.steps import (
    RecordedOptimizer,
    Recording,
    check_memoryless,
    check_sampling,
    copied,
    frozen_checksums,
    trained_names,
    untouched,
)


def start(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: RowLoss,
    data: Any,
    folder: Path | None,
    options: RecordOptions,
) -> Recorder:
    """Return a recorder that watches `optimizer`; nothing is written before the first steps are.

    Returns
    -------
    Recorder

    Raises
    ------
    ConfigError, DataError, NotSupportedError, StorageError
        A loop that cannot be recorded; the model, the optimiser and the disk are left as they were.
    """
    check_model(model)
    check_module(model)
    check_loss(loss)
    check_sampling(options.sampling.kind, options.sampling.steps_per_epoch)
    check_clipping(options.clipping)
    rule = rule_of(optimizer)
    check_sharding(model, optimizer, options.processes)
    names = trained_names(model, optimizer, options.parameters)
    named = dict(model.named_parameters())
    check_parameters({name: named[name] for name in names}, dict(model.named_modules()))
    sharded = any(map(is_sharded, model.parameters()))
    if options.resume_at is None:
        check_new(folder)
    else:
        check_alone(options.processes.size, sharded)
    with untouched(0):
        rows = rows_of(data, options.collate)
        plain = unsharded(model, made_whole(model, options.processes)) if sharded else model
        twin = copied(plain, names)
        layout = Layout(twin)
        varying = varies(rows)
        random, precision = try_out(copied(plain, names), loss, rows, layout, varying)
        check_memoryless(partial(copied, plain, names), loss, rows.batch(torch.arange(min(2, len(rows)))))
        hashed = data_hash(rows, varying)
        checksums = {"frozen": frozen_checksums(twin), "data": rows_checksums(rows)}
    groups = [options_of(g) for g in optimizer.param_groups]
    place = {id(p): k for k, g in enumerate(optimizer.param_groups) for p in g["params"]}
    group_of = [place[id(named[name])] for name in names]
    recorded = RecordedOptimizer(rule, groups, group_of, steps_done(optimizer))
    recording = Recording(
        twin, names, loss, rows, hashed, recorded, options.clipping, options.sampling, random, checksums,
        precision=precision,
    )  # fmt: skip
    vectors = 1 + len(recorded.slots)
    shards = Shards(layout, vectors, options.processes) if sharded else None
    budget = options.snapshot_bytes
    if shards is None:
        states = ThinningCheckpoints(vectors * layout.size, layout.dtype, layout.device, folder, budget)
    else:
        width, whole = shards.width, shards.whole_width
        states = ThinningCheckpoints(width, layout.dtype, layout.device, None, budget, whole)
        twin.cpu()  # until `gather`: the loop needs the room
    watch = Watch(layout, folder, options.scaler, varying, shards)
    recorder = Recorder(model, optimizer, recording, states, watch)
    if options.resume_at is not None:
        try:
            with untouched(0):
                go_on(recorder, options.resume_at)
        except BaseException:
            recorder.release()
            raise
    return recorder


def rows_of(data: Any, collate: Callable[[list[Any]], Any] | None) -> RowSource:
    """Return `data` as rows, put together by `collate` if it is a data set."""
    if collate is not None and not isinstance(data, (Rows, DatasetRows, dict)):
        return DatasetRows(data, collate=collate)
    return as_rows(data)
