"""Single steps of training, taken again as they were."""

from finfluence.runs.steps._behaviour import check_memoryless, check_steady, check_unchanged
from finfluence.runs.steps._draws import equal_chances, equal_draws, same_places
from finfluence.runs.steps._epochs import check_sampling, find_epochs
from finfluence.runs.steps._precision import RECAST, CoarsestDtype, exact, precision_named, tolerance_of
from finfluence.runs.steps._randomness import (
    random_state,
    set_random_state,
    split_random_state,
    untouched,
)
from finfluence.runs.steps._recipe_steps import RecipeSteps
from finfluence.runs.steps._recomputed import states_from
from finfluence.runs.steps._recorded_steps import RecordedSteps
from finfluence.runs.steps._recording import Clipping, RecordedOptimizer, Recording, Sampling
from finfluence.runs.steps._step_log import (
    Entry,
    Flags,
    cut_entries,
    entries_of,
    read_entries,
    tensors_of,
    write_entries,
)
from finfluence.runs.steps._stepper import Stepper, initial_model, seeded, step_seed
from finfluence.runs.steps._steps import Step, Steps, Update
from finfluence.runs.steps._trained_part import (
    Parameters,
    copied,
    fingerprint,
    frozen_checksums,
    module_modes,
    set_module_modes,
    trained_names,
)

__all__ = [
    "RECAST",
    "Clipping",
    "CoarsestDtype",
    "Entry",
    "Flags",
    "Parameters",
    "RecipeSteps",
    "RecordedOptimizer",
    "RecordedSteps",
    "Recording",
    "Sampling",
    "Step",
    "Stepper",
    "Steps",
    "Update",
    "check_memoryless",
    "check_sampling",
    "check_steady",
    "check_unchanged",
    "copied",
    "cut_entries",
    "entries_of",
    "equal_chances",
    "equal_draws",
    "exact",
    "find_epochs",
    "fingerprint",
    "frozen_checksums",
    "initial_model",
    "module_modes",
    "precision_named",
    "random_state",
    "read_entries",
    "same_places",
    "seeded",
    "set_module_modes",
    "set_random_state",
    "split_random_state",
    "states_from",
    "step_seed",
    "tensors_of",
    "tolerance_of",
    "trained_names",
    "untouched",
    "write_entries",
]
