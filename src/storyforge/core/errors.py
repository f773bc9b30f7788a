"""What a person can mend: the one error that ends in a line instead of a traceback."""

from storyforge.core.text import one_line


class UserError(Exception):
    """A mistake outside the code: its one line names the file, line or key, and the remedy.

    It may quote whatever stands in a file or comes from a server: it is safe to print.
    """

    def __init__(self, text: str):
        super().__init__(one_line(text))
