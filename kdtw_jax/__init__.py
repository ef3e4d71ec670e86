"""Knowledge distillation with training wheels: distil a large T5 into a small one by Path Consistency Learning.

Arrays carry their shape as a suffix: B rows of a batch, S source length, T target length, V vocabulary, D model
width, K top-k tokens, H heads, E width of a head, N tokens fed to the decoder at once, X rows of a minibatch, R
sources of a replay buffer; `_tm1` and `_t` mark time. Token ids: pad (and decoder start) 0, end of sequence 1,
unknown 2.

    from kdtw_jax import T5Config, make_model, load_task, distil, DistilConfig
"""

from kdtw_jax.config import Experiment, TextConfig
from kdtw_jax.constraints import parse_rule
from kdtw_jax.data.task import Task, load_task
from kdtw_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from kdtw_jax.decoding import generate, generate_with_help
from kdtw_jax.errors import UserError
from kdtw_jax.experiment import run_experiment
from kdtw_jax.losses.pcl import PCLConfig, pcl_loss
from kdtw_jax.models import Model, T5Config, make_model
from kdtw_jax.replay import make_replay
from kdtw_jax.train.ask import ask
from kdtw_jax.train.ask_config import AskConfig, make_rules
from kdtw_jax.train.checkpoint import load_model, save_model
from kdtw_jax.train.distil import distil
from kdtw_jax.train.distil_config import DistilConfig
from kdtw_jax.train.fit import FitConfig, fit

__all__ = [
    "AskConfig",
    "DistilConfig",
    "Experiment",
    "FitConfig",
    "Model",
    "PCLConfig",
    "T5Config",
    "Task",
    "TextConfig",
    "Tokenizer",
    "UserError",
    "ask",
    "distil",
    "fit",
    "generate",
    "generate_with_help",
    "load_model",
    "load_task",
    "load_tokenizer",
    "make_model",
    "make_replay",
    "make_rules",
    "parse_rule",
    "pcl_loss",
    "run_experiment",
    "save_model",
    "train_tokenizer",
]

__version__ = "0.1.0"
