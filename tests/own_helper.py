"""A helper of a user's own, as the guide to helpers shows it: it repeats a word of the source in capitals."""

from kdtw_jax.helpers import FunctionHelper


def make_echo():
    def echo(source: str, written: str) -> str | None:
        if written or not source.split():
            return None
        return source.split()[0]

    return FunctionHelper("echo", echo, price=0.5)


def make_broken():
    return 1 / 0


def make_dear():
    return FunctionHelper("dear", lambda *_: None, price="3")
