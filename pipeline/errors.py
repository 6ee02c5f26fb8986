"""What the numerics refuse, for whoever runs them to say."""


class UnusableData(ValueError):
    """The data do not determine what is asked of them, or change their nature on the way."""

    exit_code = 10
