"""What the command line accepts, and how it says that something is not accepted."""

SMALLEST, LARGEST = 64, 2048
"""Side of a picture in pixels."""
LARGEST_FACTOR = 8.0


class UsageError(Exception):
    """A mistake of the caller, said in one line."""
