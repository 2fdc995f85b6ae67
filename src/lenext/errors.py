"""The exceptions a user can meet. Each says what was given and what would be accepted, and has its exit code."""


class LenextError(Exception):
    """Base of every error that is the user's to mend; shown as one line, without a traceback."""

    exit_code = 1


class UsageError(LenextError):
    """A word on the command line, a key in a file or an argument that cannot be meant."""

    exit_code = 2


class DataError(LenextError):
    """Images, labels or bundles that cannot be used as they are."""

    exit_code = 3


class OutOfMemoryError(LenextError):
    """The machine's memory does not suffice for what was asked."""

    exit_code = 4


class ParityError(LenextError):
    """A model predicts something else than it did where it was made."""

    exit_code = 5


class DivergenceError(LenextError):
    """Training produced NaN or ran away; the message advises what to change."""

    exit_code = 1


class Interrupted(LenextError):
    """The run was told to stop; its state is saved and `lenext resume` continues it."""

    exit_code = 130
