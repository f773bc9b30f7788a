"""What a person can mend: the one error that ends in a line instead of a traceback."""


class UserError(Exception):
    """A mistake outside the code: its one line names the file, line or key, and the remedy."""
