"""The command line `kdtw`: each command is a module here, imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from kdtw_jax import __version__
from kdtw_jax.cli.memory import keep_memory
from kdtw_jax.cli.output import drop_output
from kdtw_jax.errors import Unreachable, UserError

COMMANDS = {
    "train": "train a teacher and students, and compare them on a test split",
    "evaluate": "judge the models of a run on another split or by other metrics",
    "write": "write texts of your own with a student that asks under a rule of your own",
    "classroom": "write word problems about an interest, with solutions that are checked",
    "serve-teacher": "serve a teacher over HTTP to students elsewhere",
    "serve": "serve a student to clients of OpenAI's API",
    "demo": "serve a student with its page, to try it in a browser",
    "compare": "compare ways to share the writing between a student and its teacher",
    "label": "have a teacher write ahead what students learn from, for other machines",
    "prices": "train a student for each price of a call: what they plan as help gets dear",
    "headroom": "say what planning ahead could give a run's students",
    "fetch": "fetch a published model that comes as a package",
    "export": "write a model of a run in the Hugging Face layout",
    "plan": "say what a run would take (memory, FLOPs, hours); nothing is trained",
    "env": "show versions, devices and what is installed, for reports of bugs",
}
HELP = f"""\
usage: kdtw COMMAND ...

Distil a large language model into a small one that learns when to ask it for help.

{chr(10).join(f"  {name:<14}{what}" for name, what in COMMANDS.items())}

kdtw COMMAND --help says more; kdtw --version. To begin: kdtw train --preset quickstart"""
_ASKED = {**dict.fromkeys(("-h", "--help", "help"), HELP), "--version": f"kdtw_jax {__version__}"}
_STOPPED, _NO_READER = 130, 141  # as shells number SIGINT and SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      arguments: by default those of the program.

    Returns:
      The exit status: 0, 2 after a one-line error, 1 where a teacher elsewhere was waited for in vain,
        130 after Ctrl-C, 141 when nobody reads on.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words else "--help"
    if command not in (*COMMANDS, *_ASKED):
        print(f"error: unknown command {command!r}; known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        if command in _ASKED:
            print(_ASKED[command], flush=True)
        else:
            keep_memory()
            import_module(f"kdtw_jax.cli.{command.replace('-', '_')}").run(words[1:])
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except Unreachable as error:
        _say(f"error: {error}; the same command continues where it was")
        return 1
    except KeyboardInterrupt:
        again = "; the same command continues where it was" if command in ("train", "label") else ""
        _say(f"stopped{again}")
        return _STOPPED
    except BrokenPipeError:
        drop_output()
        return _NO_READER
    return 0


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)
