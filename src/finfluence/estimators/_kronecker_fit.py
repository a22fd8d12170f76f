"""What a fit of K-FAC or EK-FAC costs, and what has to be said of it."""

from finfluence.curvature import Kronecker


def fit_passes(curvature: str, corrected: bool) -> float:
    """Return the evaluations of every row that a fit takes."""
    return (1 + corrected) * (2 if curvature == "gauss-newton" else 1)


def said_of(fitted: Kronecker) -> tuple[str, ...]:
    """Return what has to be said of a fitted curvature: parameters with a diagonal only, a loss that is not convex."""
    said = []
    if fitted.diagonal:
        some = ", ".join(repr(name) for name in fitted.diagonal[:6])
        more = f" and {len(fitted.diagonal) - 6} more" if len(fitted.diagonal) > 6 else ""
        said.append(
            f"{some}{more}: parameters of no linear or convolution layer by itself, given a diagonal curvature"
        )
    if fitted.clamped > 1e-6:
        said.append(
            f"the loss is not convex in the model's outputs: negative curvature (up to {fitted.clamped:.2g} of the "
            "largest) was taken as zero"
        )
    return tuple(said)
