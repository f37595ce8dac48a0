import html

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.text import digest, query_key, strip_html


def strip(text: str | None) -> str | None:
    return strip_html(pa.array([text], pa.string()))[0].as_py()


def test_html_becomes_text() -> None:
    assert (
        strip("<p>Soft&nbsp;cotton,<br/>100&#37; natural</p><ul><li>S</li><li>M</li></ul>")
        == "Soft cotton, 100% natural S M"
    )
    assert strip("a<!-- hidden <b> -->b <script>let x = '<p>';</script>c <STYLE>p{}</STYLE >d") == "a b c d"


def test_what_is_no_tag_stays() -> None:
    assert strip("width < 5 cm & depth <3cm > 2") == "width < 5 cm & depth <3cm > 2"
    assert strip(None) is None
    assert strip("") == ""


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_escaped_text_comes_back_with_white_space_joined(text: str) -> None:
    # References such as &#0; would be mended by HTML's rules, so only escaped text is compared.
    stripped = strip(html.escape(text))
    assert stripped is not None
    assert stripped.split() == text.split()


def test_query_key_ignores_case_width_and_spaces_but_not_locale() -> None:
    assert query_key("  Red  SHOES ", "us") == query_key("red \uff53hoes", "US")
    assert query_key("red shoes", "us") != query_key("red shoes", "es")
    assert query_key("red shoes", "us") != query_key("redshoes", "us")


def test_digest_is_the_same_on_every_machine() -> None:
    assert digest("red shoes", "us") == "8dc1951b1a29f474"
    assert digest("a", "b") != digest("ab", "")
