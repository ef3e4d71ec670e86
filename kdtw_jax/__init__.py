"""Knowledge distillation with training wheels: a small T5 student learns from a large teacher, and when to ask it.

    import kdtw_jax

    student = kdtw_jax.load("runs/quickstart")
    student(["a source"], rule="ask the teacher for at most 20% of the words")

Arrays carry their shape as a suffix: B rows of a batch, S source length, T target length, V vocabulary, D model
width, K top-k tokens, H heads, E width of a head, N tokens fed to the decoder at once, X rows of a minibatch, R
sources of a replay buffer; `_tm1` and `_t` mark time. Token ids: pad (and decoder start) 0, end of sequence 1,
unknown 2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kdtw_jax.answers import Answer, Answers
    from kdtw_jax.api import train
    from kdtw_jax.constraints import parse_rule
    from kdtw_jax.constraints.account import Account
    from kdtw_jax.data.task import Task, load_task
    from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
    from kdtw_jax.decoding import generate, generate_with_help
    from kdtw_jax.errors import UserError
    from kdtw_jax.judge import Evaluation, evaluate
    from kdtw_jax.losses.pcl import PCLConfig, pcl_loss
    from kdtw_jax.methods import METHODS, Method, StudentTraining, TrainContext, register
    from kdtw_jax.methods.ask_config import AskConfig
    from kdtw_jax.methods.mle import MLEConfig
    from kdtw_jax.methods.pcl_config import DistilConfig
    from kdtw_jax.metrics.scores import Score
    from kdtw_jax.models import Model, T5Config, make_model
    from kdtw_jax.pipeline.config import Experiment, TextConfig
    from kdtw_jax.pipeline.experiment import run_experiment
    from kdtw_jax.replay import make_replay
    from kdtw_jax.student import Student, load
    from kdtw_jax.training.saved import load_model, save_model

# Where each public name is; imported when it is first used, so that `import kdtw_jax` costs nothing.
_HOMES = {
    "Account": "constraints.account",
    "Answer": "answers",
    "Answers": "answers",
    "AskConfig": "methods.ask_config",
    "DistilConfig": "methods.pcl_config",
    "Evaluation": "judge",
    "Experiment": "pipeline.config",
    "METHODS": "methods",
    "MLEConfig": "methods.mle",
    "Method": "methods",
    "Model": "models",
    "PCLConfig": "losses.pcl",
    "Score": "metrics.scores",
    "Student": "student",
    "StudentTraining": "methods",
    "T5Config": "models",
    "Task": "data.task",
    "TextConfig": "pipeline.config",
    "Tokenizer": "data.tokenizer",
    "TrainContext": "methods",
    "UserError": "errors",
    "evaluate": "judge",
    "generate": "decoding",
    "generate_with_help": "decoding",
    "load": "student",
    "load_model": "training.saved",
    "load_task": "data.task",
    "load_tokenizer": "data.tokenizer",
    "make_model": "models",
    "make_replay": "replay",
    "parse_rule": "constraints",
    "pcl_loss": "losses.pcl",
    "register": "methods",
    "run_experiment": "pipeline.experiment",
    "save_model": "training.saved",
    "train": "api",
    "train_tokenizer": "data.tokenizer",
}

__all__ = [
    "METHODS",
    "Account",
    "Answer",
    "Answers",
    "AskConfig",
    "DistilConfig",
    "Evaluation",
    "Experiment",
    "MLEConfig",
    "Method",
    "Model",
    "PCLConfig",
    "Score",
    "Student",
    "StudentTraining",
    "T5Config",
    "Task",
    "TextConfig",
    "Tokenizer",
    "TrainContext",
    "UserError",
    "__version__",
    "evaluate",
    "generate",
    "generate_with_help",
    "load",
    "load_model",
    "load_task",
    "load_tokenizer",
    "make_model",
    "make_replay",
    "parse_rule",
    "pcl_loss",
    "register",
    "run_experiment",
    "save_model",
    "train",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
