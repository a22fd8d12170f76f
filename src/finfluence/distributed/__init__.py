"""Processes of one group, and workers of a cluster; knows nothing of influence."""

from finfluence.distributed._processes import Processes, Together
from finfluence.distributed._ray import RayWorkers, ray_workers

__all__ = ["Processes", "RayWorkers", "Together", "ray_workers"]
