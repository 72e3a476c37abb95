"""The root of the errors that Isoloss raises on purpose."""


class IsolossError(Exception):
    """Something that its message explains to people: expected, got, remedy; no traceback needed."""
