"""Debian descriptions: parsing, alignment, cleaning, splitting by package family, and apt (a stand-in for it)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kdtw_jax.data.debian import Description, align, is_summary, is_translation, parse, sentences
from kdtw_jax.data.debian_apt import download_indices, stanzas
from kdtw_jax.data.overlap import near_duplicates, normalised, overlap
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.splits import distinct, family, split_by_group
from kdtw_jax.data.task import load_task
from kdtw_jax.errors import UserError

WORDS = ["amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll", "ledge"]
WORDS += ["marsh", "north", "oasis", "prairie"]


def pair(source: str, target: str = "x", group: str = "g") -> Pair:
    return Pair(source=source, target=target, group=group)


def random_pairs(n: int, seed: int, families: int = 60) -> list[Pair]:
    rng = random.Random(seed)
    return [
        pair(" ".join(rng.choices(WORDS, k=rng.randint(2, 14))), f"t{rng.randint(0, 5)}", f"f{rng.randrange(families)}")
        for _ in range(n)
    ]


def test_stanzas_keep_the_fields_asked_for_with_their_continuations() -> None:
    index = "Package: a\nTag: one,\n two\nDescription-md5: 1\n\n\nPackage: b\nDescription-de: Kurz\n lang\n .\n mehr\n"
    found = list(stanzas(index, ("Package", "Description-de")))
    assert found == [{"Package": "a"}, {"Package": "b", "Description-de": "Kurz\n lang\n .\n mehr"}]


def test_parse_drops_lists_and_verbatim_lines_and_joins_running_lines() -> None:
    text = (
        "short  text\n One two\n three.\n .\n Features:\n  * verbatim\n  more of it\n * item\n - item\n 1. item\n"
        " After it, with\n .NET inside.\n .\n .\n Last."
    )
    assert parse(text) == Description(
        "short text", ("One two three.", "Features:", "After it, with .NET inside.", "Last.")
    )
    assert parse("only a synopsis") == Description("only a synopsis", ())


@pytest.mark.parametrize(
    ("paragraph", "count"),
    [
        ("It runs. It stops.", 2),
        ("Use e.g. Emacs or i.e. Vim. Or both!", 2),
        ("Das gilt z. B. Für alle, d.h. Immer. Gut?", 2),
        ("Version 2.0 of J. Doe, vs. Others", 1),
        ('He said "stop." Then 3 came (really!). "Yes."', 3),
        ("no capital. follows here", 1),
        ("", 0),
    ],
)
def test_sentences_lose_no_text(paragraph: str, count: int) -> None:
    parts = sentences(paragraph)
    assert len(parts) == count
    assert " ".join(parts) == paragraph


def test_align_goes_as_deep_as_both_sides_agree() -> None:
    one = Description("s", ("A one. B two.", "C three. D four."))
    same = Description("S", ("A eins. B zwei.", "C drei und vier."))
    assert list(align(one, same)) == [
        ("s", "S"),
        ("A one.", "A eins."),
        ("B two.", "B zwei."),
        ("C three. D four.", "C drei und vier."),
    ]
    assert list(align(one, Description("S", ("A eins. B zwei.",)))) == [("s", "S")]


@pytest.mark.parametrize(
    ("source", "target", "good"),
    [
        ("a fast text editor", "ein schneller Texteditor", True),
        ("State Threads library", "State-Threads-Bibliothek", True),
        ("a fast text editor", "a fast text editor", False),
        ("a Fast text editor.", "a fast Text editor", False),
        ("this tool reads the mail of all your users", "dieses tool reads the mail of all users", False),
        ("a fast editor for text", "<trans> ein schneller Editor", False),
        ("See https://example.org/a/long/address", "https://example.org/a/long/address", False),
        ("editor", "ein Editor, der sehr viel mehr kann als man an dieser Stelle überhaupt sagen könnte", False),
        ("--- 1.2.3 ---", "--- 1.2.3 ---", False),
    ],
)
def test_is_translation(source: str, target: str, good: bool) -> None:
    assert is_translation(source, target) is good


@pytest.mark.parametrize(
    ("long", "short", "good"),
    [
        ("Foo edits text quickly and has many colours.", "fast and colourful text editor", True),
        ("Foo is a fast text editor with colours.", "Fast text editor", False),
        ("Foo edits text.", "editor", False),
        ("Short text", "a longer text than that", False),
        ("12 34 56 78 90", "numbers of a kind", False),
    ],
)
def test_is_summary(long: str, short: str, good: bool) -> None:
    assert is_summary(long, short) is good


@pytest.mark.parametrize(
    "relatives",
    [
        ("gcc-12", "gcc-13", "gcc-12-cross", "gcc-mingw-w64 (23)"),
        (
            "foo",
            "python-foo",
            "python3-foo",
            "python3-libfoo2-doc",
            "libfoo",
            "libfoo2",
            "ruby-foo",
            "foo-doc",
            "foo-dev",
        ),
        ("linux", "linux-6.1", "linux-signed-amd64 (6.1.2+3)"),
        ("llvm-toolchain-14", "llvm-toolchain-15"),
        ("hunspell-de", "hunspell-fr", "hunspell"),
        ("php8.2", "php"),
    ],
)
def test_family_groups_relatives(relatives: tuple[str, ...]) -> None:
    assert len({family(name) for name in relatives}) == 1


@pytest.mark.parametrize(
    "name", ["7zip", "0ad", "libreoffice", "python3.11", "lib32", "r-cran-ab", "x", "linuxlogo", "data"]
)
def test_family_is_never_empty_and_a_fixed_point(name: str) -> None:
    assert family(name)
    assert family(family(name)) == family(name)


def test_families_keep_strangers_apart() -> None:
    assert len({family(name) for name in ("linux", "linuxlogo", "gccgo", "7zip", "0ad", "vim", "emacs")}) == 7


def test_distinct_takes_the_commonest_target_in_any_order() -> None:
    pairs = [pair("Foo 1", "b"), pair("foo 2", "a"), pair("FOO  3", "b"), pair("bar", "c")]
    for seed in range(5):
        shuffled = random.Random(seed).sample(pairs, k=4)
        assert distinct(shuffled) == distinct(pairs)
    assert {p["target"] for p in distinct(pairs)} == {"b", "c"}


@pytest.mark.parametrize("seed", range(3))
def test_no_family_and_no_near_duplicate_is_on_both_sides(seed: int) -> None:
    pairs = distinct(random_pairs(600, seed))
    splits, notes = split_by_group(pairs, minimum={"test": 40, "validation": 30}, salt="s")
    families = {split: {p["group"] for p in chosen} for split, chosen in splits.items()}
    assert not families["train"] & (families["test"] | families["validation"])
    assert not families["test"] & families["validation"]
    assert len(splits["test"]) >= 40
    assert len(splits["validation"]) >= 30
    held_out = [p["source"] for split in ("test", "validation") for p in splits[split]]
    kept = [p["source"] for p in splits["train"]]
    assert not any(near_duplicates(kept, held_out))
    assert not {normalised(text) for text in kept} & {normalised(text) for text in held_out}
    missing = [p for p in pairs if not any(p in chosen for chosen in splits.values())]
    assert len(missing) == notes["dropped_from_train_near_held_out"] > 0
    assert all(near_duplicates([p["source"] for p in missing], held_out))
    assert notes["train_pairs"] == len(splits["train"])
    assert notes["test_source_in_train"] == notes["test_source_near_train"] == 0


def test_the_split_does_not_depend_on_the_order_of_pairs_but_on_the_salt() -> None:
    pairs = random_pairs(300, 0)
    minimum = {"test": 20, "validation": 20}
    first = split_by_group(distinct(pairs), minimum=minimum, salt="s")
    assert split_by_group(distinct(pairs[::-1]), minimum=minimum, salt="s") == first
    assert split_by_group(distinct(pairs), minimum=minimum, salt="t").splits != first.splits


def test_a_group_that_would_fill_the_test_split_is_for_training() -> None:
    pairs = [pair(f"{a} {b}", group="big") for a in WORDS for b in WORDS] + [
        pair(f"{word} alone somewhere", group=word) for word in WORDS
    ]
    splits = split_by_group(pairs, minimum={"test": 8, "validation": 8}, salt="s").splits
    assert all(p["group"] != "big" for split in ("test", "validation") for p in splits[split])


def test_too_few_families_are_refused() -> None:
    with pytest.raises(UserError, match="too few"):
        split_by_group(random_pairs(50, 0, families=1), minimum={"test": 5, "validation": 5}, salt="s")


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_equals_comparing_all(seed: int) -> None:
    texts = [p["source"] for p in random_pairs(150, seed)]
    others = [p["source"] for p in random_pairs(150, seed + 10)]

    def alike(one: str, other: str) -> bool:
        a, b = one.split(), other.split()
        runs_a = {tuple(a[i : i + 8]) for i in range(len(a) - 7)}
        runs_b = {tuple(b[i : i + 8]) for i in range(len(b) - 7)}
        jaccard = len(set(a) & set(b)) / len(set(a) | set(b))
        return jaccard >= 0.8 or (bool(runs_a & runs_b) and 2 * len(runs_a & runs_b) >= len(runs_b))

    expected = [any(alike(text, other) for other in others) for text in texts]
    assert 0 < sum(expected) < len(texts)
    assert near_duplicates(texts, others) == expected


def test_a_text_that_has_half_of_another_is_its_near_duplicate_but_not_the_reverse() -> None:
    short = " ".join(WORDS[:9])
    long = short + " " + " ".join(f"{word}s" for word in WORDS * 2)
    assert near_duplicates([long], [short]) == [True]
    assert near_duplicates([short], [long]) == [False]
    assert near_duplicates([short], [long], whole="texts") == [True]


def test_overlap_counts_what_is_there() -> None:
    eight = "one two three four five six seven eight"
    train = [pair("Foo 12 bar", "Ziel"), pair(f"zero {eight}", "b")]
    test = [pair("foo 7  bar", "c"), pair(f"{eight} nine", "ZIEL"), pair("strange thing", "d"), pair("other", "e")]
    assert overlap(train, test) == {
        "test_source_in_train": 0.25,
        "test_target_in_train": 0.25,
        "test_source_near_train": 0.5,
        "test_shingles_in_train": 0.5,
    }


APT_GET = """#!/bin/sh
case "$*" in
  *indextargets*) [ -f "{base}/Packages" ] && printf 'Packages\\t\\t{base}/Packages\\n'
    for f in "{base}"/Translation-*; do
      [ -f "$f" ] && printf 'Translations\\t%s\\t%s\\n' "${{f##*-}}" "$f"; done; exit 0;;
  *update*) echo "W: Failed to fetch http://mirror/InRelease" >&2; exit 0;;
esac
exit 1
"""
APT_HELPER = '#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\nexec /bin/cat "$1"\n'


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `apt-get` and `apt-helper` that hand out the indices lying in it; the only folder on PATH."""
    base = tmp_path / "apt machine"
    base.mkdir()
    for name, script in (("apt-get", APT_GET.format(base=base)), ("apt-helper", APT_HELPER)):
        (base / name).write_text(script)
        (base / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(base))
    return base


def write_indices(base: Path, packages: int = 80) -> None:
    rng = random.Random(0)
    names, english, german = [], [], []
    for i in range(packages):
        title, rest = rng.sample(WORDS, 6), rng.choices(WORDS, k=12)
        source = f"Source: src{chr(97 + i % 26)}{chr(97 + i // 52)}x-{i} (1.{i})\n" if i % 2 else ""
        names.append(f"Package: pkg{chr(97 + i % 26)}{chr(97 + i // 26)}\n{source}Description-md5: {i:032x}\n")
        head = f"Package: p{i}\nDescription-md5: {i:032x}\n"
        english.append(f"{head}Description-en: tool of {' '.join(title)}\n The {' '.join(rest)}.\n .\n  verbatim\n")
        deutsch = " ".join(word[::-1] for word in rest)
        german.append(f"{head}Description-de: Werkzeug für {' '.join(w[::-1] for w in title)}\n Das {deutsch}.\n")
    (base / "Packages").write_text("\n".join(names))
    (base / "Translation-en").write_text("\n".join(english))
    (base / "Translation-de").write_text("\n".join(german), encoding="utf-8")


def test_debian_tasks_from_indices_to_pairs_and_again_without_apt(
    apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_indices(apt)
    task = load_task("debian/en-de", data_dir=tmp_path / "data")
    assert (task.instruction, task.language) == ("translate English to German: {source}", "de")
    assert sum(len(source) for source in task.splits.values()) + task.notes["dropped_from_train_near_held_out"] == 160
    for source in task.splits.values():
        assert len(source) > 0
        for item in source:
            count = 2 if item["source"].startswith("tool of") else 1
            words = item["source"].removesuffix(".").split()[count:]
            assert [word[::-1] for word in words] == item["target"].removesuffix(".").split()[count:]
    summaries = load_task("debian/summarize", data_dir=tmp_path / "data")
    assert (summaries.instruction, summaries.language) == ("summarize: {source}", "en")
    assert all(item["source"].startswith("The ") for item in summaries.splits["train"])
    assert all(item["target"].startswith("tool of ") for item in summaries.splits["train"])

    monkeypatch.setenv("PATH", str(tmp_path))
    again = load_task("debian/en-de", data_dir=tmp_path / "data")
    assert again.fingerprint == task.fingerprint
    assert dict(again.notes) == dict(task.notes)
    assert list(again.splits["test"]) == list(task.splits["test"])


def test_no_apt_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"need apt-get.*use --data cldr") as e:
        load_task("debian/en-de", data_dir=tmp_path / "data")
    assert "\n" not in str(e.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_no_network_is_explained_with_the_words_of_apt(apt: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no package indices \(W: Failed to fetch.*check the network"):
        load_task("debian/en-de", data_dir=tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["apt"]


def test_a_language_without_index_is_explained(apt: Path, tmp_path: Path) -> None:
    write_indices(apt)
    with pytest.raises(UserError, match="Translation-fr"):
        download_indices(tmp_path / "lists", ("en", "fr"))


def test_apt_is_told_to_keep_to_our_folder(apt: Path, tmp_path: Path) -> None:
    write_indices(apt)
    download_indices(tmp_path / "lists", ("en", "de"))
    settings = (tmp_path / "lists" / "apt.conf").read_text()
    assert f'Dir::State "{tmp_path}/lists"' in settings
    assert 'Acquire::Languages { "en"; "de"; }' in settings


@pytest.mark.parametrize("name", ["debian/", "debian/de", "debian/en-en", "debian/../x", "debian/en-de-fr"])
def test_unknown_debian_tasks_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="debian/en-de"):
        load_task(name, data_dir=tmp_path)
