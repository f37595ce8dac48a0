"""The vllm backend against the stand-in in ``standins``: vLLM itself needs a GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from manylens.config import TransformersTeacher, VllmTeacher
from manylens.errors import MissingExtraError, TeacherError
from manylens.records import ESCI, Pair
from manylens.teacher import build_backend
from manylens.teacher.answers import parse_answer
from manylens.teacher.backends import Answer, Request
from manylens.teacher.backends.vllm import VllmBackend
from manylens.teacher.perspectives import NEUTRAL
from manylens.teacher.questions import requests_of

STANDINS = Path(__file__).parent / "standins"


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(STANDINS)
    import vllm

    yield vllm
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


def config(model: Path, **settings: object) -> VllmTeacher:
    defaults = {"backend": "vllm", "model": str(model), "sampling": {"max_tokens": 8}}
    return VllmTeacher.model_validate({**defaults, **settings})


@pytest.fixture
def requests(make_pair: Callable[..., Pair]) -> list[Request]:
    pairs = [make_pair(number, description="soft " * (number * 7 % 5)) for number in range(5)]
    return list(requests_of(pairs, [NEUTRAL], ESCI))


def texts(asked: Iterator[tuple[Request, Answer | None]]) -> list[str | None]:
    return [answer and answer.text for _, answer in asked]


def test_greedy_answers_are_those_of_transformers(vllm: ModuleType, teacher: Path, requests: list[Request]) -> None:
    other = TransformersTeacher(backend="transformers", model=str(teacher), sampling={"max_tokens": 8})
    expected = {request.pair_id: answer for request, answer in build_backend(other).ask(requests)}
    found = list(build_backend(config(teacher)).ask(requests))
    assert [request for request, _ in found] == requests
    assert {request.pair_id: answer for request, answer in found} == expected


def test_one_engine_answers_all_batches_and_keeps_prefixes(
    vllm: ModuleType, teacher: Path, requests: list[Request]
) -> None:
    backend = VllmBackend(config(teacher, batch_size=2, engine={"tensor_parallel_size": 2}))
    assert len(list(backend.ask(iter(requests)))) == 5
    (engine,) = vllm.started
    assert (engine.batches, engine.prefix_caching, engine.tensor_parallel_size) == ([2, 2, 1], True, 2)


def test_engine_options_pass_and_win(vllm: ModuleType, teacher: Path, requests: list[Request]) -> None:
    list(VllmBackend(config(teacher, engine={"enable_prefix_caching": False})).ask(requests[:1]))
    assert [engine.prefix_caching for engine in vllm.started] == [False]


def test_samples_have_seeds_of_their_own(vllm: ModuleType, teacher: Path, make_pair: Callable[..., Pair]) -> None:
    requests = list(requests_of([make_pair(1), make_pair(2)], [NEUTRAL], ESCI, 2))
    backend = VllmBackend(config(teacher, sampling={"temperature": 1.0, "max_tokens": 8}))
    found = texts(backend.ask(requests))
    assert len(set(found)) == 4
    assert texts(backend.ask(requests[::-1])) == found[::-1]


@pytest.mark.parametrize(("rank", "most"), [(4, 8), (24, 32)])
def test_an_adapter_is_loaded_with_room_for_its_rank(
    vllm: ModuleType, teacher: Path, requests: list[Request], tmp_path: Path, rank: int, most: int
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(teacher), lora).save_pretrained(tmp_path)
    adapted = texts(VllmBackend(config(teacher, adapter=str(tmp_path))).ask(requests))
    assert [engine.lora_rank for engine in vllm.started] == [most]
    assert adapted != texts(VllmBackend(config(teacher)).ask(requests))


def test_structured_answers_are_json_with_rationale_and_label(
    vllm: ModuleType, teacher: Path, requests: list[Request]
) -> None:
    backend = VllmBackend(config(teacher, structured_output=True))
    assert (backend.answer_format, VllmBackend(config(teacher)).answer_format) == ("json", "text")
    ((_, answer),) = backend.ask(requests[:1])
    assert answer is not None
    assert list(json.loads(answer.text)) == ["rationale", "label"]
    assert parse_answer(answer.text, ESCI).label == "exact"


def test_chat_template_variables_reach_the_prompt(vllm: ModuleType, teacher: Path, requests: list[Request]) -> None:
    ((_, slow),) = VllmBackend(config(teacher)).ask(requests[:1])
    quick = config(teacher, chat_template_kwargs={"enable_thinking": False})
    ((_, fast),) = VllmBackend(quick).ask(requests[:1])
    assert slow is not None and fast is not None
    assert (fast.prompt_tokens or 0) > (slow.prompt_tokens or 0)


def test_a_request_that_vllm_gives_up_on_has_no_answer(
    vllm: ModuleType, teacher: Path, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = vllm.RequestOutput("0", [1], [vllm.CompletionOutput(0, "", [], "abort")])
    monkeypatch.setattr(vllm.LLM, "chat", lambda *_, **__: [output])
    assert texts(VllmBackend(config(teacher)).ask(requests[:1])) == [None]


def test_a_prompt_that_is_too_long_says_so(vllm: ModuleType, teacher: Path, requests: list[Request]) -> None:
    backend = VllmBackend(config(teacher, engine={"max_model_len": 50}))
    with pytest.raises(TeacherError, match=r"one of 5 prompts, pairs 'q0:p0' to 'q4:p4': .*longer than the maximum"):
        list(backend.ask(requests))


def test_an_engine_that_does_not_start_says_so(vllm: ModuleType, teacher: Path, requests: list[Request]) -> None:
    with pytest.raises(TeacherError, match=r"vLLM cannot start .*tiny' with .*'float99'.*Unknown dtype"):
        list(VllmBackend(config(teacher, engine={"dtype": "float99"})).ask(requests))


def test_a_missing_vllm_names_the_extra(teacher: Path, requests: list[Request]) -> None:
    with pytest.raises(MissingExtraError, match=r"vllm is not installed; run: pip install 'manylens\[vllm\]'"):
        list(VllmBackend(config(teacher)).ask(requests))


def test_the_settings_that_shape_answers_are_the_identity(teacher: Path, adapter: Path) -> None:
    plain = VllmBackend(config(teacher))
    assert plain.name.startswith("vllm:tiny@")
    assert VllmBackend(config(teacher, adapter=str(adapter))).name.startswith(f"{plain.name}+lora@")
    others: list[dict[str, object]] = [
        {"structured_output": True},
        {"engine": {"dtype": "float16"}},
        {"sampling": {"temperature": 0.5, "max_tokens": 8}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ]
    assert len({plain.sampling, *(VllmBackend(config(teacher, **other)).sampling for other in others)}) == 5
    # How fast, and where, is no part of it.
    faster = config(teacher, batch_size=9, engine={"gpu_memory_utilization": 0.5})
    assert VllmBackend(faster).sampling == plain.sampling
