"""Every benchmark table, one after the other: python -m benchmarks (about half an hour on two cores)."""

import runpy
import sys

sys.argv = sys.argv[:1]
for name in ("speed", "retrain_speed", "detection", "calibration"):
    print(f"\n=== {name}", flush=True)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
