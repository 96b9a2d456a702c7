"""The one exception a user's mistake raises."""


class GlunetError(ValueError):
    """A user's mistake, told in one sentence: what came, what was expected, what to do.

    The command line prints the sentence and ends with exit code 2; nothing else of the package prints or exits.
    """
