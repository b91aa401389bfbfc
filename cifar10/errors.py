"""Errors that users can fix: the message is one line that says what is wrong and what to do."""


class UserError(Exception):
    """A mistake that the user can fix; commands print its message, without a traceback, and exit with `exit_code`."""

    exit_code = 1


class FolderBusy(UserError):
    """Another process is using the folder: nothing in it may be touched."""


class JobChanged(FolderBusy):
    """A sweep's job began with other settings: it is not the job in the folder, of which nothing may be touched."""


class Pruned(UserError):
    """Not a mistake: a search has given up one of its trials. The message is the reason."""


class MissingData(UserError):
    """The data set does not exist and could not be downloaded; `make train` then continues with drawn images."""

    exit_code = 66  # EX_NOINPUT of sysexits.h


def cause_of(error: Exception) -> str:
    """The short reason for `error`, on one line."""
    reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
    return " ".join(f"{reason}".split())[:120] or type(error).__name__


def one_line(value: object) -> str:
    return " ".join(str(value).split())
