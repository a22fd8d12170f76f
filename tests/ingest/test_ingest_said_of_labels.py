"""What is said of labels: copies that contradict each other, classes that nothing tests, spellings taken as one."""

import numpy as np
import pandas as pd

from finfluence.ingest import from_frame, split

RNG = np.random.default_rng(3)


def made(n, classes="ab"):
    return pd.DataFrame(
        {"x": RNG.normal(size=n), "z": RNG.normal(size=n), "label": [*classes] * (n // len(classes))}
    )


def said(frame, holdout=None):
    held = None if holdout is None else from_frame(holdout, target="label")
    return " | ".join(split(from_frame(frame, target="label"), holdout=held)[0].warnings)


def test_copies_with_another_label():
    frame = made(80)
    turned = frame.iloc[:20].assign(label=lambda part: np.where(part["label"] == "a", "b", "a"))
    assert "training rows have the very features of another one, but another label: look for copies" in said(
        pd.concat([frame, turned], ignore_index=True)
    )
    assert "another label" not in said(pd.concat([frame, frame.iloc[:20]], ignore_index=True))
    few_levels = frame.assign(x=RNG.integers(0, 3, 80), z=RNG.integers(0, 2, 80))
    assert "another label" not in said(few_levels)


def test_a_class_that_the_hold_out_lacks():
    frame, held = made(90, "abc"), made(30, "ab")
    assert "the hold-out has no row of the class 'c': nothing can test what is said of it" in said(
        frame, held
    )
    assert "has no row" not in said(frame, made(30, "abc")) and "has no row" not in said(frame)


def test_spellings_of_one_class():
    frame = made(80).assign(label=["1", "1.0", "2", "2"] * 20)
    assert "the target 'label' writes one class in several ways, '1" in said(frame)
    assert "several ways" not in said(made(80))
