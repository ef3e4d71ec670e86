"""A teacher by the address that a user gives."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.data.vocabulary_hash import vocabulary_hash
from kdtw_jax.errors import UserError
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.teachers.protocol import Teacher

ENGINES = ("llama.cpp", "vllm")
PLACE_BY_PLACE = ("llama.cpp",)  # of these, those that cannot read a row in one call (`TeacherAbout.reads_rows`)
_WEB = ("http", "https")
NEEDED = ("httpx", "msgpack", "starlette", "tenacity", "uvicorn")


def open_teacher(name: str, *, tokenizer: Tokenizer | None = None, dtype: str = "float32", **more: Any) -> Teacher:
    """The teacher at an address, or a model here.

    Args:
      name: "http://host:port" of `kdtw serve-teacher`, "llama.cpp+http://host:port", "vllm+http://host:port", or the
        name of a model as for `find_model`.
      tokenizer: the student's; a teacher of another vocabulary is refused. An engine of others does not say its
        vocabulary and has to have this one, the model's own, which is checked as far as it can be.
      dtype: what a published model that is read here computes in.
      more: of `kdtw_jax.teachers.resilience.Endpoint`, as `patience`.

    Raises:
      UserError: it is no such name, a package is missing, an engine without a tokenizer, or another vocabulary.
      TeacherUnavailable: nobody answers there.
    """
    scheme = name.partition("://")[0] if "://" in name else ""
    engine, plus, web = scheme.rpartition("+")
    if not scheme:
        found = find_model(name)
        from kdtw_jax.teachers.in_process import InProcessTeacher

        teacher: Teacher = InProcessTeacher(read_teacher(found, dtype=dtype), name)
    else:
        if web not in _WEB or engine not in ("", *ENGINES) or bool(plus) != bool(engine):
            known = ", ".join(["http://host:port", *(f"{engine}+http://host:port" for engine in ENGINES)])
            raise UserError(f"{name!r} is no teacher's address; known are {known}, or the name of a model")
        url = name.removeprefix(f"{engine}+")
        _check_url(name, url)
        check_extra()
        teacher = _remote(engine, url, tokenizer, more)
    if tokenizer is not None and teacher.about.vocabulary != vocabulary_hash(tokenizer):
        teacher.close()
        raise UserError(
            f"the teacher {name} has another vocabulary ({teacher.about.vocabulary}) than the student "
            f"({vocabulary_hash(tokenizer)}); take the teacher that it was trained with"
        )
    return teacher


def check_extra() -> None:
    """Checks that the packages of teachers over the network are there.

    Raises:
      UserError: they are not.
    """
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        raise UserError(f"teachers over the network need {missing[0]}, which is not installed: pip install '.[serve]'")


def _remote(engine: str, url: str, tokenizer: Tokenizer | None, more: dict[str, Any]) -> Teacher:
    from kdtw_jax.teachers.resilience import Endpoint

    if engine and tokenizer is None:
        raise UserError(f"{engine} does not say its vocabulary; name the tokenizer of its model")
    endpoint = Endpoint(url, **more)
    try:
        if tokenizer is None or not engine:
            from kdtw_jax.teachers.http import HttpTeacher

            return HttpTeacher(endpoint)
        if engine == "vllm":
            from kdtw_jax.teachers.vllm import VllmTeacher

            return VllmTeacher(endpoint, tokenizer)
        from kdtw_jax.teachers.llama_cpp import LlamaCppTeacher

        return LlamaCppTeacher(endpoint, tokenizer)
    except BaseException:
        endpoint.close()
        raise


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        fits = False
    if not fits:
        raise UserError(f"{name!r} is no teacher's address; it would be as http://127.0.0.1:8100")
