"""What a user can mend. Knows nothing else of imgclf, so that every module may raise it."""

import errno
import os


class UserError(Exception):
  """A mistake in a config, a data set, a file or a command: one line saying what, where and the
  mend.

  The command line prints the message without a traceback and exits with code 2.
  """


class Diverged(Exception):
  """The training loss became NaN or infinite. The command line exits with code 3."""


class Stopped(BaseException):
  """A signal asked the run to stop and its state is saved. The command line exits with code 75.

  Like KeyboardInterrupt no Exception: it may come up anywhere, and nothing but the end of a run is
  to take it.
  """


# What the user can do something about, of all that can be wrong with a disk.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def unwritable(path: str | os.PathLike[str], error: OSError, what: str = "") -> UserError:
  """Returns the error for a file or folder of a run that the system does not let be written.

  Args:
    path: the file or folder.
    error: what the system said.
    what: of the run is meant, where the path does not tell, with a space at its end.
  """
  full = error.errno in FULL
  mend = "make room" if full else "give a --workdir that you may write to"
  return UserError(
    f"{os.fspath(path)}: {what}can't be written ({error.strerror}); {mend}, then run the same command again"
  )
