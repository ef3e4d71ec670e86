"""What a run depends on, as frozen dataclasses, and how a command line becomes one."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from kdtw_jax.constraints import known_constraints
from kdtw_jax.data.text import without_surrogates
from kdtw_jax.data.textfiles import FileSpec
from kdtw_jax.data.tfds_source import Features
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.scoring import BLEU_TOKENIZERS
from kdtw_jax.hosts import HostsConfig
from kdtw_jax.models import T5Config
from kdtw_jax.ranges import check_ranges
from kdtw_jax.runs.folder import flatten
from kdtw_jax.runs.trackers import Tracker
from kdtw_jax.train.ask_config import AskConfig
from kdtw_jax.train.distil_config import DistilConfig, check_uncut
from kdtw_jax.train.fit import FitConfig
from kdtw_jax.train.gkd import GKDConfig
from kdtw_jax.train.minillm import MiniLLMConfig

Method = Literal["mle", "word_kd", "pcl", "ask", "seqkd", "gkd", "minillm", "tb"]
Preset = Literal["tiny", "quickstart", "small", "base", "paper"]
# What only evaluation reads.
JUDGING = (
    "split",
    "text.test_limit",
    "text.files.metrics",
    "text.files.language",
    "text.bleu_tokenizer",
    "beam_size",
    "length_penalty",
    "ask.judged_on",
)
_SEEDS = 2**32 - 4096  # students add to theirs, and what shuffles batches takes 32 bits


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
        check_ranges(self, "text.", limit="[0, inf)", test_limit="[0, inf)", vocab_size="[1, inf)")
        check_ranges(self, "text.", max_source="[2, inf)", max_target="[2, inf)", character_coverage="[0.98, 1]")
        check_ranges(self, "text.", batch_tokens="[1, inf)", buckets="[1, inf)")


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
    log_to: tuple[Tracker, ...] = ("tensorboard",)
    """where the numbers of trainings go beside metrics.jsonl; all but tensorboard are libraries to be installed"""
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
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds must be distinct whole numbers, at least one, got {self.seeds}")
        if not all(0 <= seed < _SEEDS for seed in self.seeds):
            raise UserError(f"seeds must be at least 0 and below {_SEEDS}, got {self.seeds}")
        check_ranges(self, devices="[0, inf)", teacher_shards="[1, inf)", beam_size="[1, inf)")
        check_ranges(self, length_penalty="[0, inf)", plan_tflops="(0, inf)", plan_utilization="(0, 1]")
        known_constraints(self.ask.constraints, self.teacher)  # raises for a name that is none
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise UserError(f"methods must be distinct, at least one, got {self.methods}")
        if idle := set(self.beam_targets) - set(self.methods):
            trained = ", ".join(self.methods)
            raise UserError(f"beam_targets names {', '.join(sorted(idle))}, which is not among the methods {trained}")
        if "tb" in self.methods:
            check_uncut(self.tb)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return plain(self)

    def identity(self) -> dict[str, Any]:
        """What a run's folder is for: all that every stage depends on. Methods and seeds may join later, and what only
        evaluation reads (`judging`) may change."""
        apart = ["out", "results", "devices", "hosts", "teacher_shards", "seeds", "methods", *get_args(Method)]
        apart += ["offline", "log_to", "plan", "plan_tflops", "plan_utilization", "beam_targets", *JUDGING]
        if self.student_model is None:  # runs from before there was a choice go on
            apart.append("student_model")
        own = without({**self.to_json(), "teacher_seed": self.seeds[0]}, apart)
        if self.text.character_coverage == 1.0:  # likewise
            del own["text"]["character_coverage"]
        return own

    def judging(self) -> dict[str, Any]:
        """What only evaluation reads, by dotted name: it may change from call to call."""
        return {name: value for name, value in flatten(self.to_json()).items() if name in JUDGING}

    def beam(self) -> dict[str, float]:
        """How the teacher searches: of what is judged, and of what the methods that learn from it are."""
        return {"beam_size": self.beam_size, "length_penalty": self.length_penalty}

    def learns_from_beams(self, method: Method) -> bool:
        """Whether the targets of a method are the teacher's beam outputs."""
        return method == "seqkd" or method in self.beam_targets

    def identity_of(self, method: Method) -> dict[str, Any]:
        """What the students of a method depend on beyond that."""
        own = without({method: self.to_json()[method]}, JUDGING)
        if method in self.beam_targets and method != "seqkd":
            own["targets"] = "beam"
        if self.learns_from_beams(method):
            own |= self.beam()
        if method == "ask" and self.ask.settle:  # on the pairs of validation that are left
            own["text"] = {"test_limit": self.text.test_limit}
        return own


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as values of JSON."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return values


def without(plain: Mapping[str, Any], apart: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Nested values but for those of the given dotted names."""
    kept = {name: value for name, value in plain.items() if prefix + name not in apart}
    return {n: without(v, apart, f"{prefix}{n}.") if isinstance(v, Mapping) else v for n, v in kept.items()}


def parse(
    presets: Mapping[str, Experiment], description: str | None, arguments: Sequence[str] | None = None
) -> Experiment:
    """The preset named by `--preset` (default: the first), with every field overridable by a flag.

    Raises UserError for an unknown preset and for words that are no UTF-8; unknown flags and malformed values end the
    program with status 2.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for word in words:
        if "\0" in word or word != without_surrogates(word):
            raise UserError(f"{word!a} is not UTF-8, as the files of a run are; give names and texts in UTF-8")
    name = next(iter(presets))
    for i, word in enumerate(words):
        if word == "--preset" and i + 1 < len(words):
            name = words[i + 1]
        elif word.startswith("--preset="):
            name = word.partition("=")[2]
    if name not in presets:
        raise UserError(f"unknown preset {name!r}; known are {', '.join(presets)}")
    return tyro.cli(Experiment, default=presets[name], description=description, args=words)
