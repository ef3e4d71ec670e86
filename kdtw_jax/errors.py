"""The one exception that means "the user can fix this"."""


class UserError(Exception):
    """Bad input; the message is one line that says what was wrong and what would be right."""
