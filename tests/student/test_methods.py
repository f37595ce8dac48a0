from __future__ import annotations

import pytest

from manylens.errors import UnknownNameError
from manylens.student.methods import METHODS, get_method


def test_a_guide_needs_an_extractor() -> None:
    assert all(method.extractor for method in METHODS.values() if method.guide)


def test_methods_by_name() -> None:
    assert (get_method("bert").extractor, get_method("bert").guide) == (False, False)
    assert (get_method("lrkd").extractor, get_method("lrkd").guide) == (True, True)


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown method 'lrdk' \(did you mean 'lrkd'\?\); known: bert, lrkd"):
        get_method("lrdk")
