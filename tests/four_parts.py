"""An error says what was expected, what was got, why that happens and what to do."""


def assert_parts(error: Exception, expected: str, got: str, cause: str, next_step: str) -> None:
    lines = str(error).splitlines()
    assert lines[0].startswith("expected ") and expected in lines[0], lines[0]
    for line, prefix, part in zip(
        lines[1:], ("  got: ", "  likely cause: ", "  next step: "), (got, cause, next_step), strict=True
    ):
        assert line.startswith(prefix) and part in line, line
