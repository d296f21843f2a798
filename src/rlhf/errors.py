"""The one exception that is the user's to mend."""


class UserError(Exception):
    """Bad input or settings. Its text is the whole message: what is wrong, where, both values, what to do."""
