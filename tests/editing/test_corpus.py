"""What is a document: in text with and without blank lines, JSON, JSON Lines and saved datasets; and what is said of the rest."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from padcheck.editing import corpus
from padcheck.editing.corpus import embedded_corpus, open_corpus
from padcheck.sources.reading import SourceError


def test_corpora(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffOne,\ntwo.\n\n \nThree.\n", "utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "Four."}\n\n"Five."\n{"text": " "}\n', "utf-8")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    corpus = open_corpus([tmp_path])
    assert list(corpus) == list(corpus) == ["One, two.", "Three.", "Four.", "Five."]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": ', r"a\.jsonl:2.*not JSON"),
        ("a.jsonl", '{"body": "x"}\n', r"no text at 'text'.*body"),
        ("a.jsonl", "[1]\n", "neither a text nor an object"),
        ("a.jsonl", '"x"\n{"text": "a\\ud800b"}\n', r"a\.jsonl:2: .*half a character \(\\ud800"),
        ("a.jsonl", '"x"\n' + "[" * 200_000, r"a\.jsonl:2: .*nested too deeply"),
        ("a.jsonl", '"x"\n{"id": ' + "1" * 5000 + "}", r"a\.jsonl:2: .*thousands of digits"),
        ("a.jsonl", '[\n"x"\n]\n', r"a\.jsonl:1:2: .*one array \.json"),
        ("a.json", '["x",\n {"text": "a\\ud800b"}]', r"a\.json:2: .*half a character"),
        ("a.json", '["x",\n' + "[" * 200_000, r"a\.json:2:1: .*nested too deeply"),
        ("a.json", '["x",\n{"id": ' + "1" * 5000 + "}]", r"a\.json:2:1: .*thousands of digits"),
        ("a.json", '["x",\n"y"\n"z"]', r"a\.json:3:1: .*Expecting ',' or '\]'"),
        ("a.json", '["x",\n]', r"a\.json:2:1: .*Expecting value"),
        ("a.json", '["x"', r"a\.json:1:5: .*Expecting ',' or '\]'"),
        ("a.json", '["x"]\n["y"]', r"a\.json:2:1: .*Extra data"),
        ("a.json", '[{"body": "x"},\n{"body": "y"}]', r"a\.json:1: .*no text at 'text'.*body"),
        ("a.json", '{"text": "x"}\n{"body": "x"}', r"a\.json:2: .*no text at 'text'.*body"),
        ("a.json", '{\n "text": "x"\n}', r"a\.json:1:2: .*one record a line"),
        ("a.txt", b"\xff\xfebad", "UTF-16"),
        ("a.bin", "x", "no text, no JSON Lines"),
    ],
)
def test_what_is_no_corpus(tmp_path: Path, name: str, content: str | bytes, fault: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError, match=fault):
        list(open_corpus([tmp_path]))
    with pytest.raises(SourceError, match="does not exist"):
        open_corpus([tmp_path / "missing"])


def test_saved_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    with pytest.raises(SourceError, match=r"no split 'test'.*train"):
        list(open_corpus([tmp_path], split="test"))
    with monkeypatch.context() as without:
        without.setattr("padcheck.editing.corpus.find_spec", lambda name: None)
        with pytest.raises(SourceError, match="pip install pyarrow"):
            list(open_corpus([tmp_path]))
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"text": ["One.", "Two."], "title": ["a", "b"]})
    with pyarrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as sink:
        sink.write_table(table)
    monkeypatch.setattr("padcheck.editing.corpus.find_spec", lambda name: SimpleNamespace() if name == "pyarrow" else None)
    walk = iter(open_corpus([tmp_path]))
    assert list(walk) == ["One.", "Two."]
    assert walk.share is not None
    assert walk.share > 0.5
    with pytest.raises(SourceError, match=r"no column 'body'.*text, title"):
        list(open_corpus([tmp_path], field="body"))


def test_the_embedded_corpus() -> None:
    texts = list(embedded_corpus())
    assert len(texts) > 100
    assert len(set(texts)) == len(texts)
    assert sum(len(text.encode()) for text in texts) <= 60_000


# ---- text with and without blank lines


def test_a_file_without_blank_lines_has_a_document_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\nOne.\n  Two.  \r\nThree.\n\n")  # blank lines before and behind separate nothing
    (tmp_path / "b.txt").write_text("Four,\nfive.\n \nSix.")
    (tmp_path / "c.txt").write_text("\nSeven.\n")
    walk = iter(open_corpus([tmp_path]))
    assert list(walk) == ["One.", "Two.", "Three.", "Four, five.", "Six.", "Seven."]
    assert walk.by_line == [tmp_path / "a.txt"]


def test_a_blank_line_is_looked_for_where_a_paragraph_can_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_LOOK_AHEAD", 40)
    (tmp_path / "a.txt").write_text("a line\n" * 10 + "\nthe end")
    (tmp_path / "b.txt").write_text("a line\n" * 5 + "\nthe end")
    assert list(open_corpus([tmp_path / "a.txt"])) == ["a line"] * 10 + ["the end"]
    assert list(open_corpus([tmp_path / "b.txt"])) == ["a line a line a line a line a line", "the end"]


@given(lines=st.lists(st.sampled_from(["", " ", "x", "the y", "ééé", "z" * 70_000]), max_size=12), ends=st.booleans())
def test_text_against_its_definition(lines: list[str], ends: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(("\n".join(lines) + "\n" * ends).encode())
    bare = "\n".join(line.strip() for line in lines).strip("\n")
    paragraphs = [part.strip("\n").replace("\n", " ") for part in bare.split("\n\n")]
    expected = paragraphs if "\n\n" in bare else bare.split("\n")
    assert list(open_corpus([path])) == [text for text in expected if text]


def test_a_long_line_is_read_in_one_go(tmp_path: Path) -> None:
    """It takes less than the same text in lines; read piece by piece anew it would take fourteen times as long."""
    size, seconds = 320_000, []
    for end in ("\n", " "):
        (tmp_path / "a.txt").write_text(f"{'word ' * 20}{end}" * size)
        began = time.perf_counter()
        assert sum(len(text) for text in open_corpus([tmp_path / "a.txt"])) > 98 * size
        seconds.append(time.perf_counter() - began)
    assert seconds[1] < 5 * seconds[0]


# ---- JSON


WRITTEN: dict[str, Callable[[list[object]], str]] = {
    "array": json.dumps,
    "indented array": lambda records: "\n " + json.dumps(records, indent=2) + "\n",
    "lines": lambda records: "\n".join(map(json.dumps, records)),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("packed", [False, True])
def test_json_is_an_array_or_lines(tmp_path: Path, written: str, packed: bool) -> None:
    records: list[object] = [{"text": "One,\n[two]."}, "Three.", {"id": 1, "text": " "}, {"text": "Four, 漢字 😀."}]
    path = tmp_path / ("a.json.gz" if packed else "a.json")
    data = WRITTEN[written](records).encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    assert list(open_corpus([tmp_path])) == ["One,\n[two].", "Three.", "Four, 漢字 😀."]
    path.write_bytes(b"[ ]" if written != "lines" else b"")
    assert list(open_corpus([tmp_path])) == []


# ---- how much of it was read


def test_the_share_that_was_read(tmp_path: Path) -> None:
    texts = [f"{'é' * number} text" for number in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(texts), "utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (tmp_path / "c.json").write_text(json.dumps(texts))
    files = [tmp_path / name for name in ("a.txt", "b.jsonl", "c.json")]
    sizes = [file.stat().st_size for file in files]
    walk = iter(open_corpus(files))
    shares = [walk.share for _ in walk]
    assert len(shares) == 120
    assert shares == sorted(shares)
    for number in (1, 2, 3):
        assert shares[40 * number - 1] == pytest.approx(sum(sizes[:number]) / sum(sizes), abs=0.01)
    read = sum(len(f"{text}\n\n".encode()) for text in texts[:20])
    assert shares[19] == pytest.approx(read / sum(sizes), abs=0.002)


def test_the_share_of_packed_files_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"Two."))
    walk = iter(open_corpus([tmp_path]))
    assert [walk.share for _ in walk] == [None, None]
