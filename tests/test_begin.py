"""What is wrong with a run's folder is said before its text is read, and text that no command finds is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import kdtw_jax
from kdtw_jax import Task, UserError
from kdtw_jax.cli import main
from kdtw_jax.data.task import SOURCES, TaskRequest, register_source
from kdtw_jax.pipeline.presets import TRANSLATION
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import open_run, write_json
from tests.commands import train

WORDS = ("--preset", "tiny", "--data", "unread", "--methods", "mle")


def refuse_to_read(request: TaskRequest) -> Task:
    """A source whose text must not be read."""
    raise AssertionError(f"{request.name} was read")


@pytest.fixture(autouse=True)
def unread() -> Iterator[None]:
    register_source("unread", refuse_to_read)
    yield
    del SOURCES["unread"]


def begun(folder: Path, data: str = "unread") -> Path:
    """The folder of a run whose trainings are marked done."""
    config = replace(TRANSLATION["tiny"], data=data, methods=("mle",))
    with open_run(folder, {"task": "translation", **config.identity()}) as run:
        run.claim("seed0/mle", config.identity_of("mle"))
        for stage in ("teacher", "seed0/mle", "seed0/ask"):
            run.mark_done(stage)
    (folder / "run.yaml").touch()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "headroom"])
def test_a_locked_folder_is_told_before_any_text_is_read(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun(tmp_path / "run")
    words = [*WORDS, "--out", str(folder)] if command == "train" else [str(folder)]
    with open_run(folder, {"task": "translation", **restore(folder)[1].identity()}):
        assert "is in use by process" in refused([command, *words], capsys)
    with pytest.raises(AssertionError, match="unread was read"):  # released, the text is next
        main([command, *words])


def test_a_folder_of_another_run_is_told_before_any_text_is_read_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun(tmp_path / "run")
    other = tmp_path / "others"
    write_json(other / "config.json", {"of": "another program"})
    before = contents(tmp_path)
    words = ["train", *WORDS, "--text.limit", "7", "--out"]
    assert "holds a run of another configuration: text.limit was 600, now 7" in refused([*words, str(folder)], capsys)
    assert "holds a run of another configuration: of was" in refused([*words, str(other)], capsys)
    assert "is a file; a run needs a folder" in refused([*words, str(other / "config.json")], capsys)
    assert "holds other files and no config.json" in refused([*words, str(tmp_path)], capsys)
    after = contents(tmp_path)
    assert {name for name in after if not name.endswith(".lock")} == {n for n in before if not n.endswith(".lock")}
    assert all(after[name] == before[name] for name in after if not name.endswith(".lock"))
    assert not (other / ".lock").exists()  # by which it would be taken for a run's
    with pytest.raises(UserError, match="another configuration"):
        kdtw_jax.train("unread", "mle", preset="tiny", out=folder, settings={"text": {"limit": 7}})


def test_a_run_that_has_nothing_to_lose_is_replaced_once_the_text_is_there(tmp_path: Path) -> None:
    config = TRANSLATION["tiny"]
    with open_run(tmp_path / "run", {"task": "translation", **config.identity()}):
        pass
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(AssertionError, match="unread was read"):
        train([*WORDS, "--out", str(tmp_path / "run")])
    assert (tmp_path / "run" / "config.json").read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate", "compare", "headroom"])
@pytest.mark.parametrize("name", ["dates", "unread"])  # by chance a name may be that of a source
def test_of_a_run_on_pairs_from_python_commands_name_the_function_that_judges_it(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun(tmp_path / "run", name)
    (folder / "run.yaml").unlink()
    (folder / "stages" / "teacher.json").unlink()  # not every method trains one
    said = refused([command, str(folder)], capsys)
    assert f"the text of {folder} was given in Python" in said
    assert f"kdtw_jax.evaluate(kdtw_jax.load({str(folder)!r}), task) judges its students" in said


def test_a_seed_that_does_not_stand_first_is_told_how_it_joins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher has the first seed, so that alone another one makes another teacher."""
    folder = begun(tmp_path / "run")
    before = contents(folder)
    assert train([*WORDS, "--out", str(folder), "--seeds", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "was trained with the seed 0, which stands first: say --seeds 0 1 to add students of the seed 1" in line
    assert train([*WORDS, "--out", str(folder), "--seeds", "1", "--text.max-source", "9"]) == 2
    assert "text.max_source was 32, now 9" in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("command", ["compare", "headroom"])
def test_a_seed_is_looked_at_once(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--seeds must be distinct, got 0 0" in refused([command, str(tmp_path), "--seeds", "0", "0"], capsys)
