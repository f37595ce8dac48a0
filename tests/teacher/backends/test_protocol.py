from __future__ import annotations

from manylens.teacher.backends import Request, canonical_json, request_seed


def test_equal_settings_are_equal_text() -> None:
    assert canonical_json({"top_p": 1, "seed": None}) == '{"seed":null,"top_p":1}'
    assert canonical_json({"seed": None, "top_p": 1}) == '{"seed":null,"top_p":1}'


def test_each_question_sample_and_attempt_has_a_seed_of_its_own() -> None:
    def seed(first: int = 13, prompt_hash: str = "a", **place: int) -> int:
        return request_seed(
            first, Request(pair_id="q:p", perspective="x", messages=[], prompt_hash=prompt_hash, **place)
        )

    seeds = [seed(), seed(14), seed(prompt_hash="b"), seed(sample=1), seed(attempt=1), seed(sample=1, attempt=1)]
    assert len(set(seeds)) == 6
    assert seed() == seed()
    assert all(0 <= each < 2**32 for each in seeds)
