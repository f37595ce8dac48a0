from __future__ import annotations

import pytest
import torch

from manylens.teacher.backends.generation import RowSampler

#: Softmax: 0.4, 0.3, 0.2, 0.1.
LOGITS = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]]))
CPU = torch.device("cpu")


def draws(count: int, temperature: float, top_p: float, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    sampler = RowSampler(range(count), temperature, top_p, CPU)
    return sampler(torch.zeros(count, 1, dtype=torch.long), logits.expand(count, -1)).argmax(dim=-1)


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.4, 0.3, 0.2, 0.1]),
        # Squares of the above, by their sum.
        (0.5, 1.0, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        # The likeliest that make up 0.6 are the first two.
        (1.0, 0.6, [4 / 7, 3 / 7, 0.0, 0.0]),
        # 16/30 of the squares lie before the second, 25/30 with it.
        (0.5, 0.6, [16 / 25, 9 / 25, 0.0, 0.0]),
    ],
)
def test_draws_follow_the_softmax_of_the_warped_logits(temperature: float, top_p: float, expected: list[float]) -> None:
    count = 4000
    found = torch.bincount(draws(count, temperature, top_p), minlength=4) / count
    # Four standard errors of a share of one half.
    assert torch.allclose(found, torch.tensor(expected), atol=4 * 0.5 / count**0.5)
    assert ((found > 0) == (torch.tensor(expected) > 0)).all()


def test_a_row_draws_the_same_whoever_is_beside_it() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    together, alone = RowSampler([5, 6, 7], 1.0, 0.9, CPU), RowSampler([6], 1.0, 0.9, CPU)
    tokens = torch.zeros(3, 1, dtype=torch.long)
    for _ in range(4):
        assert torch.equal(together(tokens, logits)[1], alone(tokens[:1], logits[1:2])[0])


def test_an_impossible_token_is_never_drawn() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    assert set(draws(500, 2.0, 1.0, logits).tolist()) == {0, 2}
