"""What the user is told instead of a traceback."""


class Problem(Exception):
    """A mistake or an obstacle, in one to three lines: what, why, what to type.

    `code` is the exit status it leads to: 1 failed, 2 wrong usage.
    """

    def __init__(self, *lines: str, code: int = 1) -> None:
        super().__init__("\n".join(lines))
        self.code = code
