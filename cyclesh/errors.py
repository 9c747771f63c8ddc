"""The three ways a run ends that are not our fault. `main` turns each into its exit status."""


class UserError(Exception):
    """The user's mistake. One line: what is wrong, where, and how to mend it (exit status 2)."""


class NonFiniteError(Exception):
    """A loss or gradient stopped being finite; names the step, the loss and the volumes (3)."""


class Stopped(Exception):
    """A signal asked the run to stop and its state is saved; the same command goes on (75)."""
