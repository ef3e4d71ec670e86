"""A user's own files: what they may be packed in and called, and which of their faults are named."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from kdtw_jax.data import overlap as overlap_module
from kdtw_jax.data import sources as sources_module
from kdtw_jax.data.lines import lines_of_file
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.splits import held_out_share
from kdtw_jax.data.task import load_task
from kdtw_jax.data.textfiles import FileSpec, file_pairs
from kdtw_jax.errors import UserError

TEXTS = [(f"the {a} house and {b}", f"{a} {b}") for a in "abcdefgh" for b in "pqrstu"]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(texts: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def json_lines(texts: list[tuple[str, str]]) -> bytes:
    return lines([json.dumps({"source": source, "target": target}) for source, target in texts])


def read(spec: FileSpec) -> list[tuple[str, str]]:
    return sorted((p["source"], p["target"]) for split in file_pairs(spec).splits.values() for p in split)


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, bz2.compress, lzma.compress, lzma_alone])
@pytest.mark.parametrize("ending", ["", ".gz", ".GZ", ".bz2", ".xz", ".lzma"])
def test_packed_files_are_read_by_their_content(tmp_path: Path, pack: Callable[[bytes], bytes], ending: str) -> None:
    source = write(tmp_path / f"a.en{ending}", pack(lines([s for s, _ in TEXTS])))
    target = write(tmp_path / "a.de", lines([t for _, t in TEXTS]))
    assert read(FileSpec(train_source=source, train_target=target)) == sorted(TEXTS)
    packed = write(tmp_path / f"a.JSONL{ending}", pack(json_lines(TEXTS)))
    assert read(FileSpec(train_source=packed)) == sorted(TEXTS)


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.jl", "a.ndjson", "a.json", "a.Json"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_of_any_name_is_lines_or_an_array(tmp_path: Path, name: str, indent: int | None) -> None:
    assert read(FileSpec(train_source=write(tmp_path / name, json_lines(TEXTS)))) == sorted(TEXTS)
    array = json.dumps([{"source": s, "target": t} for s, t in TEXTS], indent=indent)
    for text in (array, f"\n {array}\n\n", array.replace("\n", "\r\n"), "\ufeff" + array):
        assert read(FileSpec(train_source=write(tmp_path / name, text))) == sorted(TEXTS)


def test_texts_of_json_stay_as_they_are(tmp_path: Path) -> None:
    texts = [*TEXTS, (" a\n b\u2028\r\n", "\tc \x0c"), ("x\u0000y", "\u00a0z")]
    assert read(FileSpec(train_source=write(tmp_path / "a.json", json_lines(texts)))) == sorted(texts)


def test_only_line_feeds_end_a_line_and_only_ends_of_lines_go(tmp_path: Path) -> None:
    texts = [*[s for s, _ in TEXTS], "a\rb", "c\x0cd\x0be", "f\u2028g\u2029h\x85i\x1cj", " k ", "\tl"]
    for end in ("\n", "\r\n"):
        source = write(tmp_path / "a", "".join(text + end for text in texts))
        target = write(tmp_path / "b", "".join(f"{i}{end}" for i in range(len(texts))))
        found = read(FileSpec(train_source=source, train_target=target))
        assert sorted(found, key=lambda pair: int(pair[1])) == [(text, str(i)) for i, text in enumerate(texts)]


def test_halves_of_surrogate_pairs_become_replacement_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [r'{"source": "x\ud83d", "target": "\ude00\ud83d"}', r'{"source": "\ud83d\ude00", "target": "y"}']
    path = write(tmp_path / "a.jsonl", json_lines(TEXTS) + lines(bad))
    task = load_task("files", data_dir=tmp_path / "data", files=FileSpec(train_source=path))
    found = [(p["source"], p["target"]) for split in task.splits.values() for p in split]
    assert {("x\ufffd", "\ufffd\ufffd"), ("😀", "y")} <= set(found)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "U+FFFD" in line]
    assert f"{path} line {len(TEXTS) + 1}: half of a surrogate pair" in line and "in 2 of the texts" in line


GOOD = '{"source": "x", "target": "y"}'
SPREAD = json.dumps({"source": "x", "target": "y"}, indent=2) + "\n"
DEEP = GOOD.replace("}", f', "more": {"[" * 100_000 + "]" * 100_000}}}')
LONG = GOOD.replace("}", f', "more": {"9" * 5000}}}')


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f"{GOOD}\n{DEEP}\n", r"a.jsonl line 2: brackets are nested too deeply"),
        ("a.jsonl", f"{GOOD}\n{GOOD}\n{LONG}\n", r"a.jsonl line 3: cannot be read \(Exceeds the limit"),
        ("a.json", f"[\n{GOOD},\n{DEEP}]", r"a.json line 3: brackets are nested too deeply"),
        ("a.json", f"[\n{GOOD},\n\n{LONG}]", r"a.json line 4: cannot be read \(Exceeds"),
        ("a.json", f"[\n{GOOD},\n{{bad}}]", r"a.json line 3: not valid JSON"),
        ("a.json", f"[{GOOD},\n3]", r"a.json line 2: not a JSON object"),
        ("a.json", f"[{GOOD}\n{GOOD}]", r"a.json line 2: not valid JSON \(no comma"),
        ("a.json", f"[{GOOD}", r"a.json line 1: not valid JSON"),
        ("a.json", f"[{GOOD},", r"a.json line 1: not valid JSON"),
        ("a.json", f"[{GOOD}]\n{GOOD}", r"more after the array"),
        ("a.json", "[ ]", r"the array is empty"),
        ("a.json", '{\n"train": []}', r"a.json line 1: not valid JSON \(it does not end there\); .*or one array"),
        ("a.jl", f"{GOOD}\n{SPREAD}", r"a.jl line 2: .*\(it does not end there\); write one object a line \(as jq -c"),
        ("a.jl", SPREAD.replace("{\n", "{"), r"a.jl line 1: .*\(it does not end there\); write one object a line"),
        ("a.jsonl", '{"source": "x\n', r"a.jsonl line 1: not valid JSON \(Unterminated string .* at column 12\)"),
        ("a.json", '{"train": []}', r"line 1: 'source' must be a text.*has train"),
        ("a.jsonl", f"{GOOD} {GOOD}\n", r"line 1: not valid JSON \(extra text at column 32\)"),
        ("a.jsonl", f"{GOOD}\n\n{GOOD}\n", r"line 2: the line is empty"),
        ("a.jsonl", r'{"a\nb\ud83d": 1}', r"the object has 'a\\nb\\ud83d'$"),
        ("a.jsonl", b"\xff\xfe" + GOOD.encode("utf-16-le"), r"is UTF-16; convert it"),
        ("a.en", b"\xfe\xff" + "x".encode("utf-16-be"), r"is UTF-16; convert it"),
        ("a.en", "x\ny\n".encode("utf-32"), r"is UTF-32; convert it"),
        ("a.en", b"\0\0\xfe\xff" + "x\ny\n".encode("utf-32-be"), r"is UTF-32; convert it"),
        ("a.en", "x\ny\n".encode("utf-16-be"), r"a.en line 1: byte 1 is 0; is this UTF-16"),
        ("a.en.gz", gzip.compress("x\n".encode("utf-16"), mtime=0), r"a.en.gz is UTF-16; convert it"),
        ("a.en", "x\ny\n".encode("utf-16-le"), r"a.en line 1: byte 2 is 0; is this UTF-16"),
        ("a.en.gz", gzip.compress(b"text of some length\n" * 99, mtime=0)[:-30], r"a.en.gz: cannot be unpacked"),
        ("a.en.gz", b"\x1f\x8bnothing of the kind", r"a.en.gz: cannot be unpacked"),
        ("a.xz", lzma.compress(b"text\n")[:-9], r"a.xz: cannot be unpacked"),
        ("a.bz2", bz2.compress(b"text\n")[:-9], r"a.bz2: cannot be unpacked"),
        ("a.en.gz", gzip.compress(b"x\nna\xefve\n", mtime=0), r"a.en.gz line 2: byte 3 is not valid UTF-8"),
        ("a.gz", gzip.compress(b" \n", mtime=0), r"a.gz: the file is empty"),
        ("a.gz.gz", gzip.compress(gzip.compress(b"x\n", mtime=0), mtime=0), r"a.gz.gz is packed twice; unpack it once"),
        ("a.xz", lzma.compress(bz2.compress(b"x\n")), r"a.xz is packed twice"),
        ("a.lzma", lzma_alone(b"some text\n" * 9)[:-9], r"a.lzma: cannot be unpacked"),
        ("a.lz", b"LZIP\x01\x0c", r"packed with lzip; unpack it"),
        ("a.Z", b"\x1f\x9d\x90x", r"packed with compress; unpack it"),
        ("a.zst", b"\x28\xb5\x2f\xfd\x00", r"packed with zstd; unpack it"),
        ("a.xlsx", b"PK\x03\x04\x00", r"spreadsheet; unpack it, or save"),
        ("a.parquet", b"PAR1\x00PAR1", r"is Parquet; write its columns"),
        ("a.tgz", gzip.compress(b"a" * 257 + b"ustar\x0000" + b"\0" * 100, mtime=0), r"a tar archive"),
        ("a.csv", "source,target\nx,y\n", r"a.csv is read by no rule .*JSON lines"),
        ("a.TSV", "x\ty\n", r"a.TSV has both sides in one file; write"),
        ("a.tsv.gz", gzip.compress(b"x\ty\n", mtime=0), r"a.tsv.gz has both sides"),
        ("a.txt", "x\n", r"a.txt: the file with its targets is not given"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as e:
        load_task("files", data_dir=tmp_path / "data", files=FileSpec(train_source=write(tmp_path / name, content)))
    assert "\n" not in str(e.value) and len(str(e.value)) < 400
    str(e.value).encode()
    assert not (tmp_path / "data").exists()


def test_a_file_of_json_is_no_target(tmp_path: Path) -> None:
    both, one = write(tmp_path / "a.jsonl", json_lines(TEXTS)), write(tmp_path / "a.en", lines([s for s, _ in TEXTS]))
    for spec in (FileSpec(train_source=one, train_target=both), FileSpec(train_source=both, train_target=one)):
        with pytest.raises(UserError, match="both sides"):
            file_pairs(spec)


@pytest.mark.parametrize("how", ["path", "link"])
def test_a_file_is_not_its_own_target(tmp_path: Path, how: str) -> None:
    source, target = write(tmp_path / "a", lines([s for s, _ in TEXTS])), tmp_path / ("a" if how == "path" else "b")
    if how == "link":
        target.symlink_to(source)
    with pytest.raises(UserError, match=r"a: named as source and as target; name the file with its targets$"):
        file_pairs(FileSpec(train_source=source, train_target=target))
    with pytest.raises(UserError, match=r"source_key and target_key are both 'text'; name two keys$"):
        FileSpec(source_key="text", target_key="text")


# ---- splits


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("how", ["path", "link", "copy", "packed", "lines", "shuffled", "part", "other targets"])
def test_a_split_that_is_in_training_is_refused(tmp_path: Path, split: str, how: str) -> None:
    path = write(tmp_path / "train.jsonl", json_lines(TEXTS))
    other = tmp_path / "other.jsonl"
    target = None
    if how == "path":
        other = tmp_path / "." / "train.jsonl"
    elif how == "link":
        other.symlink_to(path)
    elif how == "copy":
        shutil.copy(path, other)
    elif how == "packed":
        write(other, gzip.compress(path.read_bytes(), mtime=0))
    elif how == "lines":
        other = write(tmp_path / "other.en", lines([s.upper() for s, _ in TEXTS]))
        target = write(tmp_path / "other.de", lines([t for _, t in TEXTS]))
    elif how == "shuffled":
        write(other, json_lines(TEXTS[::-1]))
    elif how == "part":
        write(other, json_lines(TEXTS[5:9]))
    else:
        write(other, json_lines([(s, "z") for s, _ in TEXTS]))
    spec = FileSpec(train_source=path, **{f"{split}_source": other, f"{split}_target": target})  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=f"for {split} has no texts but those that .*train.jsonl for train has; name"
    ) as e:
        load_task("files", data_dir=tmp_path / "data", files=spec)
    assert "\n" not in str(e.value)


def test_test_pairs_in_training_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "train.jsonl", json_lines(TEXTS))
    other = write(tmp_path / "test.jsonl", json_lines([*TEXTS[:3], (TEXTS[4][0], "z"), ("new", "n")]))
    spec = FileSpec(train_source=path, test_source=other)
    task = load_task("files", data_dir=tmp_path / "data", files=spec)
    held_out = {p["source"] for p in task.splits["validation"]}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "for test" in line]
    assert f"4 of the 5 sources in {other} for test are train sources, too, 3 of them with the same target" in line
    assert task.notes["test_source_in_train"] == sum(s not in held_out for s, _ in (*TEXTS[:3], TEXTS[4])) / 5
    same = FileSpec(train_source=path, validation_source=other, test_source=other)
    with pytest.raises(UserError, match=r"for test has no texts but those that .* for validation has"):
        load_task("files", data_dir=tmp_path / "data", files=same)


@pytest.mark.parametrize("seed", range(4))
def test_sums_and_dates_are_held_out_by_the_share(tmp_path: Path, seed: int) -> None:
    sums = [(f"{i} + {j}", str(i + j)) for i in range(20) for j in range(25)]
    dates = [
        (f"{y}-{m:02}-{d:02}", f"{d}.{m}.{y}") for y in range(2000, 2010) for m in range(1, 13) for d in range(1, 29)
    ]
    words = [(f"set the {12 * 'ab'[i % 2]} alarm {i % 6} for {i} minutes", str(i)) for i in range(3000)]
    for texts in (sums, dates, words):
        path = write(tmp_path / "a.jsonl", json_lines(texts))
        found = file_pairs(FileSpec(train_source=path, seed=seed))
        assert {s: len(p) for s, p in found.splits.items()} == {
            "train": round(0.9 * len(texts)),
            "validation": round(0.05 * len(texts)),
            "test": round(0.05 * len(texts)),
        }
        assert found.notes["test_source_in_train"] == 0


def test_a_source_in_another_case_spacing_or_form_stays_with_it() -> None:
    forms = ["{}é x", "{}E\u0301  X", " {}É\u00a0x"]
    pairs = [Pair(source=form.format(i), target=str(n), group="") for i in range(40) for n, form in enumerate(forms)]
    splits = held_out_share({"train": pairs}, share=0.1, seed=3).splits
    for chosen in splits.values():
        assert set(Counter(p["source"].lower().strip()[0] for p in chosen).values())  # there is something
        numbers = Counter("".join(filter(str.isdigit, p["source"])) for p in chosen)
        assert set(numbers.values()) == {3}
    assert len(splits["test"]) == len(splits["validation"]) == 12


def test_too_few_sources_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json_lines([("x", str(i)) for i in range(50)]))
    with pytest.raises(UserError, match=r"^1 distinct training sources are too few"):
        file_pairs(FileSpec(train_source=path))


# ---- what is in training


def test_overlap_is_measured_on_what_is_used_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", json_lines(TEXTS))
    spec, data = FileSpec(train_source=path), tmp_path / "data"
    sizes = []
    whole = overlap_module.overlap

    def measured(train: list[Pair], test: list[Pair], **options: bool) -> dict[str, float]:
        sizes.append((len(train), len(test)))
        return whole(train, test, **options)

    monkeypatch.setattr(sources_module, "overlap", measured)
    first = load_task("files", data_dir=data, files=spec, limit=7, test_limit=1)
    assert sizes == [(7, 1)]
    again = load_task("files", data_dir=data, files=spec, limit=7, test_limit=1)
    assert sizes == [(7, 1)] and again.notes == first.notes and again.fingerprint == first.fingerprint
    load_task("files", data_dir=data, files=spec, limit=8, test_limit=1)
    write(path, json_lines(TEXTS[1:]))
    load_task("files", data_dir=data, files=spec, limit=7, test_limit=1)
    assert sizes == [(7, 1), (8, 1), (7, 1)]
    for kept in data.iterdir():
        kept.write_text("{")
    assert load_task("files", data_dir=data, files=spec, limit=7, test_limit=1).notes["train_pairs"] == 7
    assert len(sizes) == 4


def test_sums_are_not_called_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json_lines([(f"{i} + {j}", str(i + j)) for i in range(20) for j in range(25)]))
    notes = load_task("files", data_dir=tmp_path / "data", files=FileSpec(train_source=path)).notes
    assert (notes["test_source_in_train"], notes["test_source_in_train_but_for_digits"]) == (0, 1)


def test_notes_of_a_folder_that_cannot_be_written_are_measured_again(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    spec = FileSpec(train_source=write(tmp_path / "a.jsonl", json_lines(TEXTS)))
    for _ in range(2):
        assert load_task("files", data_dir=tmp_path / "data", files=spec).notes["test_source_in_train"] == 0


@pytest.mark.parametrize(
    "first", ["BZhou is a name", "PAR1 activates", "ARROW1 mission", "Rar! it said", "SQLite format 3"]
)
def test_text_that_begins_like_another_file_is_read(tmp_path: Path, first: str) -> None:
    (tmp_path / "a").write_text(first + "\n" + "x" * 300 + "\n", encoding="utf8")
    assert lines_of_file(tmp_path / "a")[0] == first


def test_zeros_behind_what_is_packed_are_forgiven(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(lzma.compress(b"one\ntwo\n") + b"\0" * 4)
    assert lines_of_file(tmp_path / "a") == ["one", "two"]


@pytest.mark.parametrize("text", ["\x01", "\u2581", "\x85 \x7f"])
def test_what_normalises_to_nothing_is_an_empty_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(f"one\n{text}\n", encoding="utf8")
    (tmp_path / "b").write_text("eins\nzwei\n", encoding="utf8")
    (tmp_path / "c.jsonl").write_text(json.dumps({"source": "x", "target": text}) + "\n", encoding="utf8")
    for spec in (FileSpec(tmp_path / "a", tmp_path / "b"), FileSpec(tmp_path / "c.jsonl")):
        with pytest.raises(UserError, match=r"line [12]: .*empty"):
            file_pairs(spec)
