"""What a run depends on, as frozen dataclasses, and how a command line becomes one."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdtw_jax.data.prompts import NONE, REST
from kdtw_jax.errors import UserError
from kdtw_jax.flags import Section, command_line, flags
from kdtw_jax.methods import METHODS, find
from kdtw_jax.methods.mle import FitConfig
from kdtw_jax.models import ModelConfig, cut_teacher, find_family
from kdtw_jax.models.lora import LoRAConfig
from kdtw_jax.parallel.hosts import HostsConfig
from kdtw_jax.pipeline.eval_config import EvalConfig as EvalConfig
from kdtw_jax.pipeline.sizes import Preset, models
from kdtw_jax.pipeline.text_config import TextConfig as TextConfig
from kdtw_jax.pretrained.named import is_address
from kdtw_jax.ranges import check_ranges
from kdtw_jax.runs.trackers import Tracker
from kdtw_jax.text.normal import without_surrogates
from kdtw_jax.training.context import StudentTraining
from kdtw_jax.training.demonstrations import PromptTargets

ELSEWHERE = "elsewhere"  # stands in a run's identity for the address of its teacher
_SEEDS = 2**32 - 4096  # students add to theirs, and what shuffles batches takes 32 bits


@dataclass(frozen=True)
class Experiment:
    """A teacher, students of several seeds and methods, and their comparison on the test split.

    Raises:
      UserError: seeds, methods, settings or models that cannot be, or do not fit each other.
    """

    preset: Preset
    """starting values of all other options"""
    data: str
    """cldr, debian/en-LANG, debian/summarize, ways, tfds:NAME, or files"""
    text: TextConfig
    teacher: ModelConfig
    student: ModelConfig
    teacher_fit: FitConfig
    """training of the teacher"""
    warmup: FitConfig = field(metadata=flags("loop.steps", "optimizer"))
    """maximum likelihood from scratch: the start that all students of a seed share, unless --student-model is it"""
    training: StudentTraining
    """what students of all methods have in common"""
    settings: Mapping[str, Any] = field(default_factory=dict, metadata=flags())
    """each method's own, by its name; a method that is not named has its defaults"""
    prompts: str = NONE
    """further sources without targets for all methods but maximum likelihood: a file (one a line, or JSON with
    --text.files.source-key), own, which only the debian tasks have, or rest, the sources of the training pairs that
    students do not have (student_pairs); the teacher and the student answer them"""
    student_pairs: int = field(default=0, metadata=flags())
    """training pairs that students have, where the teacher has all; 0: all"""
    family: str = "t5"
    """what kind of models teacher and student are, where they are trained here"""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """what models are judged on and by; it may change from one evaluation to the next"""
    out: Path | None = None
    """the run's folder, by default runs/TASK-DATA-PRESET; the same command continues what is in it"""
    results: Path | None = None
    """also write the tables and their provenance into this folder"""
    seeds: tuple[int, ...] = (0,)
    """one student per method for each of these; the teacher is trained once, with the first"""
    methods: tuple[str, ...] = ("mle", "word_kd", "pcl", "ask")
    """how students are trained"""
    log_to: tuple[Tracker, ...] = ("tensorboard",)
    """where the numbers of trainings go beside metrics.jsonl; all but tensorboard are libraries to be installed"""
    devices: int = 0
    """devices to use, of each host; 0: all"""
    hosts: HostsConfig = field(default_factory=HostsConfig, metadata=flags("count", "index", "coordinator"))
    """several processes that do this run together"""
    teacher_shards: int = 1
    """devices that the teacher is spread over, where it is too large for one"""
    teacher_model: str | None = None
    """a model to be the teacher instead of training one: the folder of a saved model, a folder in the Hugging Face
    layout (config.json, safetensors, spiece.model or tokenizer.json), or hf:NAME; sizes and vocabulary are then its;
    or the address where one is served, such as http://host:8100, with its vocabulary as --text.tokenizer"""
    teacher_wait: float = field(default=600.0, metadata=flags())
    """seconds that a teacher at an address is waited for where it does not answer"""
    teacher_requests: int = field(default=4, metadata=flags())
    """batches that it is asked about at once, while students are trained on others"""
    teacher_cache: Path | None = None
    """a folder of kdtw label: what the teacher wrote and made of it is taken from there; without --teacher-model there
    is then no teacher at all"""
    student_model: str | None = None
    """likewise the start of all students, instead of the warm-up; with the vocabulary of the teacher. {seed} in it
    stands for each seed: runs/mine/seed{seed}/warmup/model are the starts of another run"""
    student_from_teacher: int = 0
    """layers of the teacher (of T5 in each stack) that the students start as, in place of a warm-up; 0: none"""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """low-rank adapters (arXiv 2106.09685): of a student that starts from a model, little learns, and what is learned
    is added to its matrices at the end"""
    offline: bool = False
    """take hf:NAME from the local cache only"""
    beam_targets: tuple[str, ...] = ()
    """further methods that learn from the teacher's beam outputs in place of the data's targets, as seqkd does: in the
    loss, and as the ground truth of a replay buffer"""
    beam_size: int = 4
    """of the teacher's beam search that methods learn from"""
    length_penalty: float = field(default=0.6, metadata=flags())
    """exponent of its length penalty ((5 + length) / 6)"""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds must be distinct whole numbers, at least one, got {self.seeds}")
        if not all(0 <= seed < _SEEDS for seed in self.seeds):
            raise UserError(f"seeds must be at least 0 and below {_SEEDS}, got {self.seeds}")
        check_ranges(self, devices="[0, inf)", teacher_shards="[1, inf)", beam_size="[1, inf)")
        check_ranges(self, length_penalty="[0, inf)", student_from_teacher="[0, inf)")
        check_ranges(self, teacher_wait="[0, inf)", teacher_requests="[1, inf)", student_pairs="[0, inf)")
        if self.prompts == REST and not self.student_pairs:
            raise UserError("prompts is rest, so student_pairs must be at least 1; or give --prompts none")
        if self.student_from_teacher and self.student_model is not None:
            raise UserError(
                "student_from_teacher and student_model both say what students start from; keep one of them"
            )
        if self.lora.rank and self.warms_up:
            raise UserError(
                "lora.rank is for students that start from a model; give --student-model or --student-from-teacher"
            )
        for name in ("teacher", "student"):
            if not isinstance(vars(self)[name], find_family(self.family).config):
                raise UserError(f"{name} must be a model of the family {self.family}, got {vars(self)[name]!r:.80}")
        if self.student_from_teacher and self.teacher_model is None:
            cut_teacher(self.teacher, self.student_from_teacher)
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise UserError(f"methods must be distinct, at least one, got {self.methods}")
        if idle := set(self.beam_targets) - set(self.methods):
            trained = ", ".join(self.methods)
            raise UserError(f"beam_targets names {', '.join(sorted(idle))}, which is not among the methods {trained}")
        for name in self.methods:
            if name in vars(self):
                raise UserError(f"a method cannot be called {name}: that is an option of every run")
            if not isinstance(self.of(name), find(name).config):
                raise UserError(f"the settings of {name} must be a {find(name).config.__name__}, got {self.of(name)}")
            find(name).check(self.of(name), self.training, self.teacher)
            if start := find(name).start(self.of(name)):
                self._check_start(name, start)

    def only(self, method: str) -> Experiment:
        """This run of one method, and of the one whose students it goes on from."""
        kept = tuple(filter(None, (find(method).start(self.of(method)), method)))
        return dataclasses.replace(
            self, methods=kept, beam_targets=tuple(name for name in self.beam_targets if name in kept)
        )

    def _check_start(self, name: str, start: str) -> None:
        if start not in self.methods:
            raise UserError(f"{name} goes on from the student of {start}: add {start} to --methods")
        if find(start).start(self.of(start)):
            raise UserError(f"{name} cannot go on from the student of {start}, which itself goes on from another one")

    def of(self, method: str) -> Any:
        """A method's own settings.

        Raises:
          UserError: there is no such method.
        """
        return self.settings[method] if method in self.settings else find(method).config()

    def with_settings(self, **changed: Any) -> Experiment:
        """With other settings of these methods."""
        return dataclasses.replace(self, settings={**self.settings, **changed})

    @property
    def has_teacher(self) -> bool:
        """Whether there is a teacher here, and not only what one wrote or writes elsewhere."""
        return not self.teacher_elsewhere and (self.teacher_model is not None or self.teacher_cache is None)

    @property
    def teacher_elsewhere(self) -> bool:
        """Whether the teacher is named by its address."""
        return is_address(self.teacher_model)

    @property
    def trains_teacher(self) -> bool:
        """Whether the teacher is trained."""
        return self.teacher_model is None and self.teacher_cache is None

    @property
    def warms_up(self) -> bool:
        """Whether the start of students is trained."""
        return self.student_model is None and not self.student_from_teacher

    def named_students(self) -> dict[int, str]:
        """The name of the start of each seed's students; empty where they are warmed up."""
        name = self.student_model
        return {} if name is None else {seed: name.replace("{seed}", str(seed)) for seed in self.seeds}

    def in_family(self, name: str) -> Experiment:
        """With models of a family, of the preset's sizes where they were of another one.

        Raises:
          UserError: for a family that nobody has registered.
        """
        if name == self.family:
            return self
        return dataclasses.replace(self, family=name, **models(self.preset, name))

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values, with the settings of the methods that are trained under their names."""
        values = plain(dataclasses.replace(self, settings={}))
        del values["settings"]
        return values | {method: plain(self.of(method)) for method in self.methods}

    def identity(self) -> dict[str, Any]:
        """What a run's folder is for: all that every stage depends on. Methods and seeds may join later, and how models
        are judged may change."""
        apart = ["out", "results", "devices", "hosts", "teacher_shards", "seeds", "methods", *self.methods]
        apart += ["offline", "log_to", "teacher_wait", "teacher_requests", "beam_targets", *self.beam(), "eval"]
        apart += ["prompts"] if self.prompts == NONE else []
        apart += ["student_pairs"] if not self.student_pairs else []
        apart += ["teacher_cache"] if self.teacher_cache is None else []
        apart += ["lora"] if self.lora == LoRAConfig() else []
        apart += ["student_from_teacher"] if not self.student_from_teacher else []
        # That there are labels: they may move, and whose they are is bound by a stage.
        labels: dict[str, Any] = {} if self.teacher_cache is None else {"teacher_cache": True}
        if self.teacher_elsewhere:  # likewise
            labels["teacher_model"] = ELSEWHERE
        found = without({**self.to_json(), **labels, "teacher_seed": self.seeds[0]}, apart)
        # Runs that are older than these fields go on.
        for name, late in (("teacher", "rule_after"), ("student", "rule_after"), ("text", "whole_words")):
            found[name] = {key: value for key, value in found[name].items() if key != late or value}
        return found

    def beam(self) -> dict[str, float]:
        """How the teacher searches for what methods learn from."""
        return {"beam_size": self.beam_size, "length_penalty": self.length_penalty}

    def learns_from_beams(self, method: str) -> bool:
        """Whether the targets of a method are the teacher's beam outputs."""
        return find(method).targets == "beam" or method in self.beam_targets

    def prompt_targets(self, method: str) -> PromptTargets:
        """What the prompts of a method have for targets."""
        return find(method).prompts(self.of(method), self.prompts != NONE)

    def takes_prompts(self, method: str) -> bool:
        """Whether a method learns on sources that have no targets."""
        return self.prompts != NONE and (self.learns_from_beams(method) or self.prompt_targets(method) != "none")

    def identity_of(self, method: str) -> dict[str, Any]:
        """What the students of a method depend on beyond that."""
        own: dict[str, Any] = {method: plain(self.of(method))}
        if start := find(method).start(self.of(method)):
            own["start"] = self.identity_of(start)
        elif own[method].get("start") == "":  # runs that are older than this field go on
            del own[method]["start"]
        for settings in (own[method], own[method].get("distil", {})):  # and than this one
            if settings.get("likelihood_share") == 0:
                del settings["likelihood_share"]
        if method in self.beam_targets and find(method).targets != "beam":
            own["targets"] = "beam"
        if self.learns_from_beams(method) or self.prompt_targets(method) == "beam":
            own |= self.beam()
        if find(method).unseen(self.of(method)):  # the pairs of validation that are left
            own["eval"] = {"limit": self.eval.limit}
        return own


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as values of JSON."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return values


def without(plain: Mapping[str, Any], apart: Collection[str]) -> dict[str, Any]:
    """Values but for those of the given names."""
    return {name: value for name, value in plain.items() if name not in apart}


def parse(
    presets: Mapping[str, Experiment], description: str | None, arguments: Sequence[str] | None = None
) -> Experiment:
    """The configuration that flags state: a preset, and what they say otherwise.

    The preset is named by `--preset` (default: the first), every field of it is a flag, and so are the settings of the
    methods named by `--methods`. Unknown flags and malformed values end the program with status 2.

    Args:
      description: stands at the head of the help.
      arguments: by default those of the program.

    Raises:
      UserError: an unknown preset or family, settings of methods that are not chosen, or words that are no UTF-8.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for word in words:
        if "\0" in word or word != without_surrogates(word):
            raise UserError(f"{word!a} is not UTF-8, as the files of a run are; give names and texts in UTF-8")
    name = (values_of("--preset", words) or [next(iter(presets))])[0]
    if name not in presets:
        raise UserError(f"unknown preset {name!r}; known are {', '.join(presets)}")
    preset = presets[name]
    for family in values_of("--family", words)[:1]:
        preset = preset.in_family(family)
    chosen = tuple(method for method in values_of("--methods", words) or preset.methods if method in METHODS)
    for word in words:
        method = word.removeprefix("--").partition(".")[0].replace("-", "_")
        if word.startswith("--") and "." in word and method in METHODS and method not in chosen:
            raise UserError(f"{word}: {method} is not among the methods {', '.join(chosen)}; see --methods")
    names: Any = tuple[Literal[tuple(METHODS)], ...]  # type: ignore[misc]
    sections = {m: Section(METHODS[m].describe, preset.of(m), METHODS[m].flags) for m in chosen}
    listed = find_family(preset.family).flags
    sections["teacher"] = Section("the model that teaches", preset.teacher, listed)
    # Students are trained without dropout.
    sections["student"] = Section("the model that learns", preset.student, [f for f in listed if f != "dropout_rate"])
    types = {"methods": names, "beam_targets": names}
    found, settings = command_line(preset, sections, types, description, words)
    return Experiment(**{**found, "settings": {**preset.settings, **{m: settings[m] for m in chosen}}})


def values_of(flag: str, words: Sequence[str]) -> list[str]:
    """The words after the last occurrence of a flag; empty where there is none."""
    found: list[str] = []
    for i, word in enumerate(words):
        if word == flag:
            rest = itertools.takewhile(lambda word: not word.startswith("--"), words[i + 1 :])
            found = list(rest)
        elif word.startswith(f"{flag}="):
            found = [word.partition("=")[2]]
    return found
