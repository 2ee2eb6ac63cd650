"""The one exception for mistakes that a user can make and mend.

The command line prints it as a single line and exits with code 2; anything else is a defect and shows a traceback.
"""


class InputError(Exception):
    """What is wrong, where, and what to do about it, in one line."""


class DivergedError(Exception):
    """A run whose loss became NaN or infinite: trying again would repeat it, so it is never retried."""
