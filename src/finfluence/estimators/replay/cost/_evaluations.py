"""What a replay costs in evaluations of row losses: counted, not timed."""

from finfluence.estimators.replay._schedule import RowSchedule
from finfluence.estimators.replay.cost._timing import Workload


def trainings(
    workload: Workload, schedule: RowSchedule, horizon: int, sizes: list[float], replicas: int = 0
) -> float:
    """Return row evaluations of a replay over those of one training run.

    Σ over passes of (rows of the steps gone back over + rows evaluated along the way), rows of the steps taken again to
    recompute states, one training for each replica, and the final losses, over Σ rows of all steps.

    Parameters
    ----------
    workload : Workload
    schedule : RowSchedule
    horizon : int
        Epochs of the truncation window.
    sizes : list of float
        Rows of every step.
    replicas : int
        Runs repeated without groups, negative controls and the run itself among them.

    Returns
    -------
    float

    Examples
    --------
    >>> from finfluence.estimators.replay.cost import MemorySplit
    >>> from finfluence.estimators.replay._schedule import RunShape
    >>> load = Workload(RunShape(100, (10, 10)), MemorySplit(together=1, passes=2, capacity=1, interval=1))
    >>> trainings(load, RowSchedule(False, 0.0, 0), 2, [10.0] * 20)       # two passes, and n final losses
    2.5
    """
    shape, memory = workload.shape, workload.memory
    whole, steps = sum(sizes), shape.last(horizon)
    along = sum(rows * times for rows, times in schedule.evaluations(shape, horizon))
    if workload.candidates:
        often = [len(schedule.candidate_steps(0, range(count))) for count in shape.epochs[-horizon:]]
        along += workload.candidates * sum(often)
    back = memory.passes * (sum(sizes[len(sizes) - steps :]) + along)
    again = memory.recomputed(steps) * whole / shape.steps
    return (back + again + replicas * whole + shape.rows) / whole
