"""The one family of exceptions the library raises on purpose."""


class PrancImgError(ValueError):
    """A request that cannot be met: a bad file, a bad option, an unreachable rate.

    Its message is one line meant for a person; the command prints it and exits with 1.
    """
