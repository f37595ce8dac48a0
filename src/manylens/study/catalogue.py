"""The studies that come with manylens.

An arm changes as little of the recipe as it can, so that studies share students: a plain BERT is trained once.
"""

from __future__ import annotations

from pathlib import Path

from manylens.errors import UnknownNameError
from manylens.study.arms import Arm, Study, load_study

_BERT = Arm(name="bert", title="BERT", method="bert")
_LRKD = Arm(name="lrkd", title="LRKD", method="lrkd")
_LOGIT_KD = Arm(name="logit_kd", title="logit KD", method="logit_kd")


def _guided(name: str, title: str, *overrides: str, **settings: float | str) -> Arm:
    return Arm(name=name, title=title, overrides=overrides, settings=settings)


def _extractor(name: str) -> tuple[str, ...]:
    return (f"student.extractor={name}", "student.extractor_options={}")


_METHODS = Study(
    name="methods",
    title="Methods",
    question="Is LRKD better than a plain BERT and than earlier distillations?",
    arms=(
        _BERT,
        _LOGIT_KD,
        Arm(name="mkd", title="MKD", method="mkd"),
        Arm(name="ced_kd", title="CED-KD", method="ced_kd"),
        Arm(name="crsd", title="CRSD", method="crsd"),
        _guided("lrkd_mlp", "LRKD, MLP", *_extractor("mlp")),
        _guided("lrkd_poly", "LRKD, Poly-Encoder", *_extractor("poly")),
        _guided("lrkd_gat", "LRKD, GAT", *_extractor("gat")),
    ),
    contrasts=(
        *((name, "bert") for name in ("logit_kd", "mkd", "ced_kd", "crsd", "lrkd_mlp", "lrkd_poly", "lrkd_gat")),
        *(
            (lrkd, earlier)
            for lrkd in ("lrkd_mlp", "lrkd_poly", "lrkd_gat")
            for earlier in ("logit_kd", "mkd", "ced_kd", "crsd")
        ),
    ),
)

_ABLATIONS = Study(
    name="ablations",
    title="Ablations",
    question="Which part of LRKD does the work?",
    arms=(
        _BERT,
        _LRKD,
        Arm(name="no_guide", title="no guide loss", method="lrkd_no_guide"),
        Arm(name="cls_guided", title="no extractor, [CLS] guided", method="cls_guided"),
        Arm(name="dropped", title="extractor dropped at inference", method="lrkd_dropped"),
        Arm(name="zeroed", title="latents zeroed at inference", inference="zero_latents"),
    ),
    contrasts=(
        *(("lrkd", name) for name in ("bert", "no_guide", "cls_guided", "dropped", "zeroed")),
        *((name, "bert") for name in ("no_guide", "cls_guided", "dropped", "zeroed")),
    ),
)

_CONTROL_NAMES = {
    "shuffled": "rationale of another pair",
    "label": "the label's name",
    "pair": "query and product text",
    "random": "a random vector of the pair",
}
_CONTROLS = Study(
    name="controls",
    title="Controls",
    question="How much of the gain is the rationale's? Targets without it, with the same parameters and steps.",
    arms=(
        _BERT,
        _LRKD,
        *(_guided(source, f"LRKD, {title}", f"embed.source={source}") for source, title in _CONTROL_NAMES.items()),
    ),
    contrasts=(
        ("lrkd", "bert"),
        *(("lrkd", source) for source in _CONTROL_NAMES),
        *((source, "bert") for source in _CONTROL_NAMES),
    ),
)

_PLAIN = ("embed.target=mean", "embed.transform=centre", "embed.verdict_tuning=null")
_VERDICT = (*_PLAIN, "embed.verdict_tuning={}")
_TARGETS = Study(
    name="targets",
    title="Targets",
    question="What should a rationale be turned into?",
    baseline="bert",
    arms=(
        _BERT,
        _guided("none", "as encoded", *_PLAIN, "embed.transform=none"),
        _guided("centre", "centred", *_PLAIN),
        _guided("whiten", "whitened", *_PLAIN, "embed.transform=whiten"),
        _guided("residual", "residual of the pair's text", *_PLAIN, "embed.transform=residual"),
        _guided("labelled", "label in front, centred", *_PLAIN, "embed.source=labelled_rationale"),
        _guided("verdict", "verdict-tuned, centred", *_VERDICT),
        _guided("verdict_whiten", "verdict-tuned, whitened", *_VERDICT, "embed.transform=whiten"),
        _guided("verdict_residual", "verdict-tuned, residual", *_VERDICT, "embed.transform=residual"),
        _guided("per_perspective", "a latent for each perspective", *_PLAIN, "embed.target=per_perspective"),
        _guided(
            "verdict_per_perspective",
            "verdict-tuned, a latent for each perspective",
            *_VERDICT,
            "embed.target=per_perspective",
        ),
        _guided("concat_text", "joined text", *_PLAIN, "embed.target=concat_text"),
        _guided("all", "inconsistent rationales too", *_PLAIN, "embed.use=all"),
    ),
)

_GUIDES = Study(
    name="guides",
    title="Guides",
    question="How should the latent be drawn to its target?",
    baseline="bert",
    arms=(
        _BERT,
        _LRKD,
        _guided("cosine", "cosine", "student.guide.loss=cosine", "student.guide.weight=0.1"),
        _guided("cosine_1", "cosine, lambda 1", "student.guide.loss=cosine", "student.guide.weight=1"),
        _guided("info_nce", "InfoNCE, lambda 0.1", "student.guide.loss=info_nce", "student.guide.weight=0.1"),
        _guided("info_nce_1", "InfoNCE, lambda 1", "student.guide.loss=info_nce", "student.guide.weight=1"),
        _guided("warmup", "lambda warmed up over half of the steps", "student.guide.warmup_ratio=0.5"),
        _guided("align", "first align, then classify", "student.guide.align_ratio=0.3"),
        _guided(
            "align_1",
            "first align with lambda 1, then classify",
            "student.guide.align_ratio=0.3",
            "student.guide.weight=1",
        ),
        _guided("balance", "gradients balanced", "student.guide.balance=gradient_norm", "student.guide.weight=0.3"),
        _guided("agreement", "weighed by agreement", "student.guide.weigh_by=agreement"),
        _guided(
            "orthogonal",
            "a latent for each perspective, orthogonal",
            "embed.target=per_perspective",
            "student.guide.orthogonality=0.1",
        ),
    ),
)

_LAMBDAS = (0.05, 0.2, 1.0)
_EXTRACTORS = {"mlp": "MLP", "poly": "Poly-Encoder", "gat": "GAT"}
_PARETO = Study(
    name="pareto",
    title="Extractor and lambda",
    question="What does each extractor cost in latency, and what does it give at which weight of the guide?",
    baseline="bert",
    arms=(
        _BERT,
        *(
            _guided(
                f"{extractor}-{weight:g}",
                f"{title}, lambda {weight:g}",
                *_extractor(extractor),
                f"student.guide.weight={weight}",
                extractor=extractor,
                weight=weight,
            )
            for extractor, title in _EXTRACTORS.items()
            for weight in _LAMBDAS
        ),
    ),
    measures=("latency",),
)

_RATES = (0.2, 0.4, 0.6, 0.8)
_HALLUCINATION = Study(
    name="hallucination",
    title="Hallucinated rationales",
    question="How many wrong rationales does the student bear?",
    baseline="bert",
    arms=(
        _BERT,
        _LRKD.model_copy(update={"settings": {"rate": 0.0}}),
        *(
            _guided(f"rate-{rate:g}", f"LRKD, {rate:.0%} hallucinated", f"embed.hallucinate.rate={rate}", rate=rate)
            for rate in _RATES
        ),
    ),
)

_HELD_OUT = ("data.held_out_locales=[es]",)
_LANGUAGE = Study(
    name="language",
    title="A language held out",
    question="Does the gain carry over to a language (Spanish) that was never trained on?",
    arms=(
        _BERT,
        _LRKD,
        Arm(name="bert_held_out", title="BERT, Spanish held out", method="bert", overrides=_HELD_OUT),
        Arm(name="lrkd_held_out", title="LRKD, Spanish held out", overrides=_HELD_OUT),
    ),
    contrasts=(("lrkd", "bert"), ("lrkd_held_out", "bert_held_out")),
    slices=("locale",),
)

_LABELS = Study(
    name="labels",
    title="Fewer labels",
    question="What are rationales worth where labels are few? Hidden labels leave pairs that only feel the guide.",
    arms=tuple(
        Arm(
            name=f"{arm.name}-{1 - hidden:.0%}".removesuffix("%"),
            title=f"{arm.title}, {1 - hidden:.0%} of the labels",
            method=arm.method,
            overrides=(f"data.hide_labels={hidden}", "data.unlabelled=keep") if hidden else (),
            settings={"labels": 1 - hidden},
        )
        for hidden in (0.75, 0.5, 0.0)
        for arm in (_BERT, _LOGIT_KD, _LRKD)
    ),
    contrasts=tuple((f"lrkd-{share}", f"{other}-{share}") for share in (25, 50, 100) for other in ("bert", "logit_kd")),
)

_PROBE = Study(
    name="probe",
    title="Probe",
    question="Does r know the words of the rationale that stand in neither query nor product, and does h?",
    arms=(_BERT, _LRKD),
    baseline="bert",
    measures=("probe",),
    vectors=True,
)

_EXPLANATIONS = Study(
    name="explanations",
    title="Explanations",
    question="Do the teacher's rationales nearest to r argue as the student decides?",
    arms=(_LRKD, _BERT),
    baseline="bert",
    measures=("explanations",),
    vectors=True,
)

_SPLIT = Study(
    name="split",
    title="Split encoder",
    question="What does it cost that query and product do not see each other in the first layers?",
    arms=(
        _BERT,
        _LRKD.model_copy(update={"settings": {"split": 0}}),
        *(
            _guided(f"split-{layers}", f"LRKD, {layers} split", f"student.split_layers={layers}", split=layers)
            for layers in (1, 2, 3)
        ),
    ),
    baseline="lrkd",
)

#: A plain BERT, logit KD and the rationale of another pair do not depend on what the pair's own tells.
_WORLD_TOLD = (1.0, 0.0)
_WORLD_ARMS = {"bert": (_BERT, False), "logit_kd": (_LOGIT_KD, False), "lrkd": (_LRKD, True)} | {
    "shuffled": (_guided("shuffled", "LRKD, rationale of another pair", "embed.source=shuffled"), False)
}
_WORLD_CELLS = tuple((pairs, noise) for pairs in (300, 1000) for noise in (0.0, 0.4))


def _world_arm(kind: str, pairs: int, noise: float, told: float) -> Arm:
    arm, reads_rationales = _WORLD_ARMS[kind]
    dials = {"pairs": pairs, "label_noise": noise} | ({"informativeness": told} if reads_rationales else {})
    name, title = f"{kind}-{pairs}-{noise:g}", f"{arm.title}, {pairs:,} pairs, noise {noise:g}"
    return Arm(
        name=f"{name}-{told:g}" if reads_rationales else name,
        title=f"{title}, informativeness {told:g}" if reads_rationales else title,
        method=arm.method,
        overrides=(*(f"data.{key}={value}" for key, value in dials.items()), *arm.overrides),
        settings={"method": kind, **dials},
    )


_WORLD_MAP = Study(
    name="world_map",
    title="The map: when is a rationale worth its cost?",
    question="Gain over training size, label noise and how much the rationale tells, in a controlled world.",
    arms=tuple(
        {
            arm.name: arm
            for cell in _WORLD_CELLS
            for told in _WORLD_TOLD
            for arm in (_world_arm(kind, *cell, told) for kind in _WORLD_ARMS)
        }.values()
    ),
    contrasts=tuple(
        (_world_arm("lrkd", *cell, told).name, _world_arm(kind, *cell, told).name)
        for cell in _WORLD_CELLS
        for told in _WORLD_TOLD
        for kind in ("bert", "logit_kd", "shuffled")
    ),
)

STUDIES: dict[str, Study] = {
    "methods": _METHODS,
    "ablations": _ABLATIONS,
    "controls": _CONTROLS,
    "targets": _TARGETS,
    "guides": _GUIDES,
    "pareto": _PARETO,
    "hallucination": _HALLUCINATION,
    "language": _LANGUAGE,
    "labels": _LABELS,
    "probe": _PROBE,
    "explanations": _EXPLANATIONS,
    "split": _SPLIT,
    "world_map": _WORLD_MAP,
}


def get_study(name: str) -> Study:
    """Return a study by name, or from a YAML file.

    Args:
        name: A name of `STUDIES`, or a path that ends in ``.yaml`` or ``.yml``.

    Raises:
        UnknownNameError: If there is no such study.
        ConfigError: If the file is wrong.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return load_study(path)
    if name not in STUDIES:
        raise UnknownNameError("study", name, [*STUDIES, "a YAML file of your own"])
    return STUDIES[name]
