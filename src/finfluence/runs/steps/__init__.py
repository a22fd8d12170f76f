"""Single steps of training, taken again as they were."""

from finfluence.runs.steps._epochs import check_sampling
from finfluence.runs.steps._randomness import random_state, set_random_state, split_random_state, untouched
from finfluence.runs.steps._recipe_steps import RecipeSteps
from finfluence.runs.steps._recomputed import states_from
from finfluence.runs.steps._recorded_steps import RecordedSteps, Recording
from finfluence.runs.steps._step_log import Entry, entries_of, read_entries, tensors_of, write_entries
from finfluence.runs.steps._stepper import Stepper, initial_model, seeded, step_seed
from finfluence.runs.steps._steps import Step, Update
from finfluence.runs.steps._trained_part import Parameters, copied, fingerprint, modes, trained_names

__all__ = [
    "Entry",
    "Parameters",
    "RecipeSteps",
    "RecordedSteps",
    "Recording",
    "Step",
    "Stepper",
    "Update",
    "check_sampling",
    "copied",
    "entries_of",
    "fingerprint",
    "initial_model",
    "modes",
    "random_state",
    "read_entries",
    "seeded",
    "set_random_state",
    "split_random_state",
    "states_from",
    "step_seed",
    "tensors_of",
    "trained_names",
    "untouched",
    "write_entries",
]
