"""Names that strangers have given, on one line."""

from cifar10.errors import one_line


def legible(name: str) -> str:
    """A name without tabs and line breaks, and with bytes that are no text written as \\udc80."""
    return one_line(name).encode("utf-8", "backslashreplace").decode()
