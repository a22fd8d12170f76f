"""Model factories that tests name on the command line."""

from torch import nn


def tiny(input_shape, n_outputs, seed):
    return nn.Sequential(nn.Linear(input_shape[0], 3), nn.GELU(), nn.Linear(3, n_outputs))


def narrow(input_shape, n_outputs, seed):
    return nn.Linear(input_shape[0], 1)


def nothing(input_shape, n_outputs, seed):
    return None
