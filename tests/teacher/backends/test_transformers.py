from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from manylens.config import SamplingConfig, TransformersTeacher
from manylens.errors import TeacherError
from manylens.records import ESCI, Pair
from manylens.teacher import JudgementStore, build_backend, judge, judgements_of, load_perspective
from manylens.teacher.backends import Answer, Request
from manylens.teacher.backends.transformers import TransformersBackend
from manylens.teacher.perspectives import NEUTRAL
from manylens.teacher.questions import requests_of
from manylens.teacher.tokens import token_counter

TOKENS = 12


def config(model: Path, batch_size: int = 4, adapter: Path | None = None, **sampling: float) -> TransformersTeacher:
    return TransformersTeacher(
        backend="transformers",
        model=str(model),
        adapter=None if adapter is None else str(adapter),
        batch_size=batch_size,
        sampling=SamplingConfig.model_validate({"max_tokens": TOKENS, **sampling}),
    )


@pytest.fixture
def pairs(make_pair: Callable[..., Pair]) -> list[Pair]:
    """Pairs whose prompts have different lengths."""
    return [make_pair(number, description="soft " * (number * 7 % 5)) for number in range(6)]


def questions(pairs: list[Pair], samples: int = 1) -> list[Request]:
    return list(requests_of(pairs, [NEUTRAL], ESCI, samples))


def answers(config: TransformersTeacher, requests: list[Request]) -> dict[tuple[str, int], Answer | None]:
    return {(request.pair_id, request.sample): answer for request, answer in TransformersBackend(config).ask(requests)}


def greedy(
    folder: Path, requests: list[Request], adapter: Path | None = None, ends: tuple[int, ...] = ()
) -> dict[tuple[str, int], Answer | None]:
    """Answer by the argmax of one forward pass after the other: no batch, padding, cache or `generate`."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    found = {}
    for request in requests:
        tokens = list(tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=False))
        start, reason = len(tokens), "length"
        while len(tokens) < start + TOKENS and reason == "length":
            with torch.inference_mode():
                tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
            if tokens[-1] in (tokenizer.eos_token_id, *ends):
                reason = "stop"
        found[request.pair_id, request.sample] = Answer(
            text=tokenizer.decode(tokens[start:], skip_special_tokens=True),
            prompt_tokens=start,
            completion_tokens=len(tokens) - start,
            finish_reason=reason,
        )
    return found


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_batch_answers_as_each_prompt_alone(teacher: Path, pairs: list[Pair], batch_size: int) -> None:
    requests = questions(pairs)
    found = answers(config(teacher, batch_size), requests)
    assert found == greedy(teacher, requests)
    assert len({answer.text for answer in found.values() if answer}) > 1


def test_an_adapter_answers_as_if_merged(teacher: Path, adapter: Path, pairs: list[Pair]) -> None:
    requests = questions(pairs[:3])
    found = answers(config(teacher, adapter=adapter), requests)
    assert found == greedy(teacher, requests, adapter)
    assert found != answers(config(teacher), requests)


@pytest.mark.parametrize("with_adapter", [False, True])
def test_generation_heeds_the_models_ends_and_nothing_else_of_its_settings(
    teacher: Path, adapter: Path, pairs: list[Pair], tmp_path: Path, with_adapter: bool
) -> None:
    requests, lora = questions(pairs[-1:]), adapter if with_adapter else None
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    (whole,) = greedy(teacher, requests, lora).values()
    assert whole is not None
    end = tokenizer.encode(whole.text, add_special_tokens=False)[-1]
    folder = Path(shutil.copytree(teacher, tmp_path / "tiny"))
    settings = {"eos_token_id": [tokenizer.eos_token_id, end], "repetition_penalty": 5.0, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps({**settings, "temperature": 9.0, "top_k": 3}))
    found = answers(config(folder, adapter=lora), requests)
    assert found == greedy(teacher, requests, lora, ends=(end,))
    assert [answer and answer.finish_reason for answer in found.values()] == ["stop"]


def test_prompt_tokens_are_what_the_counter_counts(teacher: Path, pairs: list[Pair]) -> None:
    counter = token_counter(config(teacher))
    asked = list(TransformersBackend(config(teacher)).ask(questions(pairs)))
    assert [answer and answer.prompt_tokens for _, answer in asked] == list(
        counter.count_all(request.messages for request, _ in asked)
    )


def test_samples_differ_and_come_again_in_any_batch_and_order(teacher: Path, pairs: list[Pair]) -> None:
    requests = questions(pairs, samples=2)
    sampled = answers(config(teacher, temperature=1.0), requests)
    assert len({answer.text for answer in sampled.values() if answer}) == len(requests)
    assert answers(config(teacher, batch_size=5, temperature=1.0), requests[::-1]) == sampled
    assert answers(config(teacher, temperature=1.0, seed=14), requests) != sampled


def test_a_further_attempt_has_another_seed(teacher: Path, pairs: list[Pair]) -> None:
    (first,) = questions(pairs[:1])
    again = Request(
        pair_id="again", perspective="neutral", attempt=1, messages=first.messages, prompt_hash=first.prompt_hash
    )
    found = answers(config(teacher, temperature=1.0), [first, again])
    assert found[first.pair_id, 0] != found["again", 0]


def test_thinking_stays_in_the_text(teacher: Path, pairs: list[Pair], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teacher, tmp_path / "thinker"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    # As in Qwen3, whose tags are added tokens without being special ones.
    tokenizer.add_tokens(["<think>", "</think>"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        # The hidden state's sum is above or below zero: one of both is always the likeliest.
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("<think>")] = -1
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("</think>")] = 1
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    found = answers(config(folder), questions(pairs[:2]))
    assert all(answer and answer.text.count("think>") == TOKENS for answer in found.values())


def test_the_longest_prompts_go_first_and_a_window_is_taken_at_a_time(
    teacher: Path, make_pair: Callable[..., Pair]
) -> None:
    pairs = [make_pair(number, description="soft " * (number * 7 % 5)) for number in range(40)]
    taken = []

    def requests() -> Iterator[Request]:
        for request in questions(pairs):
            taken.append(request)
            yield request

    asked = TransformersBackend(config(teacher, batch_size=2, max_tokens=1)).ask(requests())
    next(asked)
    assert len(taken) == 32
    lengths = [answer.prompt_tokens or 0 for _, answer in asked if answer]
    assert lengths[:31] == sorted(lengths[:31], reverse=True)
    assert len(lengths) == 39


def test_a_prompt_that_leaves_no_room_for_the_answer_is_named(teacher: Path, make_pair: Callable[..., Pair]) -> None:
    with pytest.raises(
        TeacherError, match=r"pair 'q1:p1', perspective 'neutral': the prompt has \d+ tokens .* is 2000, .* 2048"
    ):
        answers(config(teacher, max_tokens=2000), questions([make_pair(1), make_pair(7, description="soft " * 9)]))


def test_memory_that_runs_out_says_what_to_lower_and_costs_no_answer(
    teacher: Path, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Qwen3ForCausalLM.forward

    def full_in_the_second_batch(model: Qwen3ForCausalLM, input_ids: torch.Tensor, **rest: object) -> object:
        if len(input_ids) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, input_ids=input_ids, **rest)

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", full_in_the_second_batch)
    problem = r"out of memory on cpu with 2 prompts of up to \d+ tokens; lower teacher\.batch_size"
    with JudgementStore(tmp_path / "store.sqlite") as store:
        with pytest.raises(TeacherError, match=problem):
            judge(pairs, [NEUTRAL], ESCI, build_backend(config(teacher, batch_size=4)), store)
        assert len(store) == 4


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dtype": "float99"}, "as float99 on cpu"),
        ({"device": "abacus"}, "on abacus"),
        ({"adapter": "nobody/nothing"}, "with adapter 'nobody/nothing' cannot be loaded"),
        ({"model": "nobody/nothing"}, "got 'nobody/nothing', which cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_named(teacher: Path, pairs: list[Pair], change: dict[str, str], problem: str) -> None:
    with pytest.raises(TeacherError, match=problem):
        answers(config(teacher).model_copy(update=change), questions(pairs))


def test_broken_weights_are_named(teacher: Path, pairs: list[Pair], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teacher, tmp_path / "tiny"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    with pytest.raises(TeacherError, match="tiny' cannot be loaded"):
        answers(config(folder), questions(pairs))


def test_building_and_naming_load_nothing(teacher: Path) -> None:
    code = (
        "import sys\n"
        "from manylens.config import TransformersTeacher\n"
        "from manylens.teacher import build_backend\n"
        "backend = build_backend(TransformersTeacher(backend='transformers', model=sys.argv[1]))\n"
        "print(backend.name, backend.sampling)\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(teacher)], capture_output=True, text=True, check=True)
    backend = build_backend(TransformersTeacher(backend="transformers", model=str(teacher)))
    assert done.stdout.split() == [backend.name, backend.sampling]


def test_the_settings_that_shape_answers_are_the_identity(teacher: Path, adapter: Path) -> None:
    plain = TransformersBackend(config(teacher))
    assert plain.name.startswith("transformers:tiny@")
    assert TransformersBackend(config(teacher, adapter=adapter)).name.startswith(f"{plain.name}+lora@")
    quick = config(teacher).model_copy(update={"chat_template_kwargs": {"enable_thinking": False}})
    others = [config(teacher, temperature=0.5), config(teacher, max_tokens=3), config(teacher, seed=1), quick]
    others.append(config(teacher).model_copy(update={"dtype": "bfloat16"}))
    assert len({plain.sampling, *(TransformersBackend(other).sampling for other in others)}) == 6
    # How fast, and where, is no part of it.
    faster = config(teacher, batch_size=9).model_copy(update={"device": "cpu"})
    assert TransformersBackend(faster).sampling == plain.sampling


def test_judging_goes_on_where_it_was_stopped(teacher: Path, pairs: list[Pair], tmp_path: Path) -> None:
    panel = [load_perspective("user_intent"), load_perspective("business_rules")]

    def run(store: Path, pairs: list[Pair], batch_size: int) -> tuple[int, list[str]]:
        backend = build_backend(config(teacher, batch_size, temperature=1.0))
        with JudgementStore(store) as kept:
            report = judge(pairs, panel, ESCI, backend, kept, samples=2)
            return report.asked, [row.raw for row in judgements_of(pairs, panel, ESCI, backend, kept, samples=2)]

    asked, _ = run(tmp_path / "parts.sqlite", pairs[:2], batch_size=3)
    rest, parts = run(tmp_path / "parts.sqlite", pairs, batch_size=5)
    assert (asked, rest) == (8, 16)
    assert run(tmp_path / "whole.sqlite", pairs, batch_size=4) == (24, parts)
    assert run(tmp_path / "parts.sqlite", pairs, batch_size=4) == (0, parts)
