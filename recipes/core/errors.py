"""The one error that tells users about their input."""


class InputError(ValueError):
    """Input that cannot be used: a file, a record, an option.

    The message is one line that names the file, the row or the option, and what was expected. The
    command prints it alone, without a traceback, and exits with code 2.
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught InputError in DataLoader worker"):  # torch adds the worker's traceback
            message = message.rpartition("InputError: ")[2].strip()
        super().__init__(message)
