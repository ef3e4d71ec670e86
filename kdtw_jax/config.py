"""What a run depends on, as frozen dataclasses, and how a command line becomes one."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from kdtw_jax.constraints import known_constraints
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.data.tfds_source import Features
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.scoring import BLEU_TOKENIZERS
from kdtw_jax.hosts import HostsConfig
from kdtw_jax.models import T5Config
from kdtw_jax.train.ask_config import AskConfig
from kdtw_jax.train.distil_config import DistilConfig
from kdtw_jax.train.fit import FitConfig
from kdtw_jax.train.gkd import GKDConfig
from kdtw_jax.train.minillm import MiniLLMConfig

Method = Literal["mle", "word_kd", "pcl", "ask", "seqkd", "gkd", "minillm", "tb"]
Preset = Literal["tiny", "quickstart", "small", "base", "paper"]


@dataclass(frozen=True)
class TextConfig:
    """How text is found and cut into pieces."""

    folder: Path = Path("runs/data")
    """where prepared data is kept between runs"""
    files: FileSpec = field(default_factory=FileSpec)
    """the files of --data files"""
    features: Features = field(default_factory=Features)
    """feature names for --data tfds:NAME, where they cannot be derived"""
    limit: int = 0
    """training pairs at the most; 0: all"""
    test_limit: int = 0
    """test (or validation) pairs to judge on at the most; 0: all"""
    tokenizer: Path | None = None
    """a sentencepiece model to use, such as T5's spiece.model, or a tokenizer.json, or byt5 for bytes; by default that
    of --teacher-model or --student-model, and without these one trained on the training split"""
    vocab_size: int = 4000
    """pieces of the vocabulary trained here"""
    character_coverage: float = 1.0
    """share of the characters of the text that become pieces of it, 0.9 to 1; below 1 only for scripts of thousands of
    characters, of which the rarest are then unknown"""
    max_source: int = 32
    """longest source, in pieces, end of sequence included"""
    max_target: int = 32
    """longest target, in pieces, end of sequence included"""
    on_long: Literal["truncate", "drop", "error"] = "drop"
    """what happens to longer pairs; whatever it is, they are counted and the counts printed"""
    instruct: bool = False
    """put the task's instruction ("translate English to German: ") before the source"""
    batch_tokens: int = 1024
    """positions in a batch, counted on its longer side"""
    buckets: int = 2
    """static shapes that batches come in"""
    bleu_tokenizer: str = ""
    """how BLEU takes texts apart: a tokenizer of sacrebleu (13a, intl, zh, ja-mecab, ko-mecab, char, flores200 ...); by
    default the language of the targets decides"""

    def __post_init__(self) -> None:
        if self.bleu_tokenizer and self.bleu_tokenizer not in BLEU_TOKENIZERS:
            known = ", ".join(BLEU_TOKENIZERS)
            raise UserError(f"text.bleu_tokenizer must be one of {known}, got {self.bleu_tokenizer!r}")
        for name in ("limit", "test_limit"):
            if vars(self)[name] < 0:
                raise UserError(f"text.{name} must be 0 (all) or more, got {vars(self)[name]}")
        if not 0.9 <= self.character_coverage <= 1.0:
            raise UserError(f"text.character_coverage must be between 0.9 and 1, got {self.character_coverage}")


@dataclass(frozen=True)
class Experiment:
    """A teacher, students of several seeds and methods, and their comparison on the test split."""

    preset: Preset
    """starting values of all other options"""
    data: str
    """cldr, debian/en-LANG, debian/summarize, tfds:NAME, or files"""
    text: TextConfig
    teacher: T5Config
    student: T5Config
    teacher_fit: FitConfig
    """training of the teacher"""
    warmup: FitConfig
    """maximum likelihood from scratch: the start that all students of a seed share, unless --student-model is it"""
    mle: FitConfig
    """student that goes on by maximum likelihood"""
    word_kd: FitConfig
    """student that goes on by word-level distillation"""
    pcl: DistilConfig
    """student that goes on by Path Consistency Learning"""
    ask: AskConfig
    """student that goes on likewise and learns to ask its teacher under rules"""
    seqkd: FitConfig
    """student that goes on by maximum likelihood of the teacher's beam outputs (sequence-level distillation)"""
    gkd: GKDConfig
    """student that goes on by generalised knowledge distillation, in part on its own outputs"""
    minillm: MiniLLMConfig
    """student that goes on by policy gradient of the reverse KL between sequences (MiniLLM)"""
    tb: DistilConfig
    """student that goes on by trajectory balance on the rows of Path Consistency Learning; pcl_weight is the weight of
    the balance loss, and what is about V or segments is not used"""
    out: Path | None = None
    """the run's folder, by default runs/TASK-DATA-PRESET; the same command continues what is in it"""
    results: Path | None = None
    """also write the tables and their provenance into this folder"""
    seeds: tuple[int, ...] = (0,)
    """one student a method for each of these; the teacher is trained once, with the first"""
    methods: tuple[Method, ...] = ("mle", "word_kd", "pcl", "ask")
    """how students are trained"""
    split: Literal["validation", "test"] = "test"
    """what models are judged on; choose settings on validation"""
    devices: int = 0
    """devices to use, of each host; 0: all"""
    hosts: HostsConfig = field(default_factory=HostsConfig)
    """several processes that do this run together"""
    teacher_shards: int = 1
    """devices that the teacher is spread over, where it is too large for one"""
    teacher_model: str | None = None
    """a model to be the teacher instead of training one: the folder of a saved model, a folder in the Hugging Face
    layout (config.json, safetensors, spiece.model or tokenizer.json), or hf:NAME; sizes and vocabulary are then its"""
    student_model: str | None = None
    """likewise the start of all students, instead of the warm-up; with the vocabulary of the teacher"""
    offline: bool = False
    """take hf:NAME from the local cache only"""
    plan: bool = False
    """say what the run would take (parameters, memory, FLOPs, hours), then stop: nothing is loaded or trained"""
    plan_tflops: float = 312.0
    """peak of one accelerator, in TFLOP/s, for the hours of --plan"""
    plan_utilization: float = 0.3
    """share of that peak to expect"""
    beam_targets: tuple[Method, ...] = ()
    """further methods that learn from the teacher's beam outputs in place of the data's targets, as seqkd does: in the
    loss, and as the ground truth of a replay buffer"""
    beam_size: int = 4
    """of the teacher's beam search, whether judged or learned from"""
    length_penalty: float = 0.6
    """exponent of the length penalty ((5 + length) / 6) in the teacher's beam search"""

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds must be distinct whole numbers of at least 0, got {self.seeds}")
        known_constraints(self.ask.constraints, self.teacher)  # raises for a name that is none
        if self.plan_tflops <= 0 or not 0 < self.plan_utilization <= 1:
            raise UserError(
                "plan_tflops must be above 0 and plan_utilization above 0 and at most 1, "
                f"got {self.plan_tflops} and {self.plan_utilization}"
            )
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise UserError(f"methods must be distinct, at least one, got {self.methods}")
        if idle := set(self.beam_targets) - set(self.methods):
            trained = ", ".join(self.methods)
            raise UserError(f"beam_targets names {', '.join(sorted(idle))}, which is not among the methods {trained}")

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return plain

    def identity(self) -> dict[str, Any]:
        """What a run's folder is for: all that every stage depends on. Methods and seeds may join later."""
        apart = ["out", "results", "devices", "hosts", "teacher_shards", "seeds", "methods", *get_args(Method)]
        apart += ["offline", "plan", "plan_tflops", "plan_utilization", "beam_targets"]
        if self.student_model is None:  # runs from before there was a choice go on
            apart.append("student_model")
        plain = {k: v for k, v in self.to_json().items() if k not in apart}
        if self.text.character_coverage == 1.0:  # likewise
            del plain["text"]["character_coverage"]
        return {**plain, "teacher_seed": self.seeds[0]}

    def learns_from_beams(self, method: Method) -> bool:
        """Whether the targets of a method are the teacher's beam outputs."""
        return method == "seqkd" or method in self.beam_targets

    def identity_of(self, method: Method) -> dict[str, Any]:
        """What the students of a method depend on beyond that."""
        targets = {"targets": "beam"} if method in self.beam_targets and method != "seqkd" else {}
        return {method: self.to_json()[method], **targets}


def parse(
    presets: Mapping[str, Experiment], description: str | None, arguments: Sequence[str] | None = None
) -> Experiment:
    """The preset named by `--preset` (default: the first), with every field overridable by a flag.

    Raises UserError for an unknown preset; unknown flags and malformed values end the program with status 2.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = next(iter(presets))
    for i, word in enumerate(words):
        if word == "--preset" and i + 1 < len(words):
            name = words[i + 1]
        elif word.startswith("--preset="):
            name = word.partition("=")[2]
    if name not in presets:
        raise UserError(f"unknown preset {name!r}; known are {', '.join(presets)}")
    return tyro.cli(Experiment, default=presets[name], description=description, args=words)
