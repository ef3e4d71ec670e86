"""How a decoder-only model is prompted: by the chat template of its checkpoint, or by the text and a line's end."""

from __future__ import annotations

import datetime
import json
from functools import lru_cache
from typing import Any, NamedTuple

from kdtw_jax.errors import UserError

_MARK = "\ue000kdtw\ue000"  # stands for what the user says; of Unicode's private use, so no template has it
_LONGEST = 2**16  # characters of a template


class Chat(NamedTuple):
    """What stands around a text, and the tokens that templates name."""

    template: str = ""  # in Jinja, as checkpoints have it; "": there is none
    bos: str = ""
    eos: str = ""
    begin: bool = False  # without a template: whether the first token is `bos`

    def around(self) -> tuple[str, str]:
        """What stands before a text, and after it.

        Raises:
          UserError: the template fails, or does not give the text as it is.
        """
        if not self.template:
            return (self.bos if self.begin else ""), "\n"
        before, mark, after = render(self, (("user", _MARK),)).partition(_MARK)
        if not mark or _MARK in after:
            raise UserError("the chat template does not say a user's message once, as it is; give another template")
        return before, after

    def end_of_turn(self) -> str:
        """What a template writes after the words of an assistant, white space aside; "" without one."""
        if not self.template:
            return ""
        told = render(self, (("user", "a"), ("assistant", _MARK)), prompted=False)
        return told.partition(_MARK)[2].strip()


@lru_cache(maxsize=8)
def render(chat: Chat, messages: tuple[tuple[str, str], ...], *, prompted: bool = True) -> str:
    """Renders a conversation as the template writes it.

    That is done in Jinja's sandbox: templates come with checkpoints, and are no code that is to be trusted.

    Args:
      chat: whose template it is.
      messages: (role, content) each.
      prompted: with what makes the model answer at its end.

    Raises:
      UserError: the template fails, in one line.
    """
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if len(chat.template) > _LONGEST:
        raise UserError(f"the chat template has {len(chat.template)} characters; at most {_LONGEST} are read")
    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    # What templates of published checkpoints call, as `transformers` offers it.
    world.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    world.globals["raise_exception"] = _refuse
    world.globals["strftime_now"] = lambda how: datetime.date(2024, 7, 26).strftime(how)  # the same on every day
    said: dict[str, Any] = {"messages": [{"role": role, "content": content} for role, content in messages]}
    said |= {"add_generation_prompt": prompted, "bos_token": chat.bos, "eos_token": chat.eos, "enable_thinking": False}
    try:
        return world.from_string(chat.template).render(said)
    except Exception as error:  # it is a program, which can fail in any way
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"the chat template fails: {reason}; give another template") from error


def _refuse(reason: str) -> None:
    import jinja2

    raise jinja2.TemplateError(reason)
