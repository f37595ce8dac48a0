from hypothesis import given
from hypothesis import strategies as st

from manylens.text import well_formed


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert well_formed("a\ud83db\U0001f600") == "a?b\U0001f600"


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_any_text_can_be_written_and_keeps_its_length(text: str) -> None:
    assert len(well_formed(text)) == len(text)
    assert well_formed(text).encode("utf-8").decode("utf-8") == well_formed(text)
