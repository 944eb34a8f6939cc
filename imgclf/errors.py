"""What a user can mend. Knows nothing else of imgclf, so that every module may raise it."""


class UserError(Exception):
  """A mistake in a config, a data set, a file or a command: one line saying what, where and the mend.

  The command line prints the message without a traceback and exits with code 2.
  """


class Diverged(Exception):
  """The training loss became NaN or infinite. The command line exits with code 3."""


class Stopped(Exception):
  """A signal asked the run to stop and its state is saved. The command line exits with code 75."""
