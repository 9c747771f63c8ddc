"""The three ways a run ends that are not our fault. `main` turns each into its exit status."""

import errno
import os


class UserError(Exception):
    """The user's mistake. One line: what is wrong, where, and how to mend it (exit status 2)."""


class NonFiniteError(Exception):
    """A loss or gradient stopped being finite (3).

    where: the run; what: the step, the loss and the volumes; advice: how that run may go on.
    """

    def __init__(self, where: object, what: str, advice: str):
        super().__init__(f"{where}: {what}; {advice}")
        self.what = what


class Stopped(BaseException):  # as KeyboardInterrupt: no fault that a caller may take for damage
    """A signal asked the run to stop and its state is saved; the same command goes on (75)."""


def disk_trouble(error: BaseException | None) -> str | None:
    """A disk that takes no more, in the system's words; None for any other error.

    The library that writes arrays raises ValueError, with those words somewhere in it.
    """
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        words = os.strerror(number)
        if isinstance(error, OSError) and error.errno == number:
            return words
        if isinstance(error, ValueError) and words in str(error):
            return words
    return None


def first_line(error: Exception) -> str:
    """What a library's error says, as part of a line of our own; its name where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
