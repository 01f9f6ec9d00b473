"""What the pages say is there in both languages, and what stands in the READMEs is what was measured."""

import pytest

from docs import readme, texts
from docs.texts import blocks_of, fields_of, paragraphs_of, translated

DOCSTRING = """Title.

One paragraph
of two lines.

Notes: 41, 42
Paper: Somebody (2015), "A title",
    https://example.org
Data: pictures.
"""


def test_every_sentence_has_its_chinese() -> None:
    left = texts.missing()
    assert not left, f"`python -m docs.texts` writes them into docs/zh, to be translated: {left}"


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_the_table_in_the_readme_is_what_was_measured(language: str) -> None:
    text = readme.FILES[language].read_text("utf-8")
    assert readme.with_table(text, language) == text, "`python -m docs.readme` writes it"


def test_docstrings_are_taken_apart() -> None:
    assert paragraphs_of(DOCSTRING) == ["One paragraph of two lines."]
    assert fields_of(DOCSTRING) == {
        "Notes": "41, 42",
        "Paper": 'Somebody (2015), "A title", https://example.org',
        "Data": "pictures.",
    }


def test_code_is_not_translated() -> None:
    page = "# Title\n\nA line\nand another:\n\n```bash\nA line\n\nand more\n```\n\n- one\n- two\n"
    assert len(blocks_of(page)) == 4
    assert translated(page, str.upper) == page.upper().replace("A LINE\n\nAND MORE", "A line\n\nand more").replace(
        "```BASH", "```bash"
    )


def test_a_changed_sentence_loses_its_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "sources", lambda: {"shared": ["a sentence that no catalog has"]})
    assert texts.missing() == {"shared": ["a sentence that no catalog has"]}
