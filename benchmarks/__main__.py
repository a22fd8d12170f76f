"""Every benchmark table, one after the other: python -m benchmarks (some hours on two cores; each also runs alone)."""

import runpy
import sys

sys.argv = sys.argv[:1]
for name in (
    "speed", "passes", "retrain_speed", "composition_speed", "scale", "verify_cost",
    "late_states", "paired_gain", "until_coverage", "coverage", "inflation", "interval_coverage", "groups", "detection",
    "curvature", "gradient_products", "scan_time", "levels", "extremes", "calibration", "assessments",
    "inclusion_priors",
    "shifted_accuracy",
    "chosen_intervals", "chosen_removals", "mitigation",
):  # fmt: skip
    print(f"\n=== {name}", flush=True)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
