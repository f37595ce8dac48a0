"""Methods: the ways to train a student, on the same backbone, data, steps and seeds.

A method is a mapping of named losses, with what they need. Notation: h is the state of [CLS] or the mean over the
tokens, r the latents, z the logits, e a rationale's vector, L_cls the cross-entropy of the labelled pairs, lambda
`student.guide.weight`; the other weights stand in `student.earlier`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from manylens.config import StudentConfig
from manylens.errors import UnknownNameError
from manylens.student.objectives import Objective
from manylens.student.parts import (
    AugmentedClassLoss,
    ClassLoss,
    ClsGuide,
    Contrast,
    Guide,
    HardLabels,
    Need,
    Orthogonality,
    Part,
    RationaleProjection,
    Shapes,
    SoftLabels,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """What makes one student differ from another.

    Attributes:
        title: For tables.
        definition: Its loss and its head.
        source: Where it comes from, and where the definition is our reading of it.
        losses: The parts of its loss by the name under which they are logged.
        extractor: Whether it has a latent reasoning extractor while it is trained.
        head_reads_latents: Whether the head reads r too; an extractor that it does not read is dropped after training.
    """

    title: str
    definition: str
    source: str
    losses: Mapping[str, type[Part]]
    extractor: bool = False
    head_reads_latents: bool = True

    @property
    def needs(self) -> frozenset[Need]:
        """What it reads of the targets; a pair without a label and without any of it teaches it nothing."""
        return frozenset[Need]().union(*(part.needs for part in self.losses.values()))

    @property
    def reads_targets(self) -> bool:
        """Whether it depends on the rationales: by a loss, or by the extractor, whose latents have their shape."""
        return self.extractor or bool(self.needs)

    @property
    def sections(self) -> frozenset[str]:
        """The sections of ``student`` that it reads, of ``guide`` and ``earlier``."""
        return frozenset(part.section for part in self.losses.values() if part.section is not None)

    def objective(self, config: StudentConfig, shapes: Shapes) -> Objective:
        """Return its loss, with new heads.

        Args:
            config: The student's section of the recipe.
            shapes: Sizes of the heads.
        """
        return Objective({name: part(config, shapes) for name, part in self.losses.items()}, config.guide)


_LRKD = "arXiv 2601.21611, section 3.3"

METHODS: dict[str, Method] = {
    "bert": Method(
        title="BERT",
        definition="L = L_cls; the head reads h",
        source="Devlin et al., arXiv 1810.04805, section 4.1, without the pooler",
        losses={"class_loss": ClassLoss},
    ),
    "logit_kd": Method(
        title="Logit KD",
        definition=(
            "L = (1 - a) L_cls + a T^2 KL(p_T || softmax(z / T)); p: the panel's votes, smoothed, "
            "p_T: p^(1/T) normalised; the head reads h"
        ),
        source="Hinton et al., arXiv 1503.02531, section 2; a panel's votes in the place of a teacher's logits",
        losses={"class_loss": HardLabels, "soft_label_loss": SoftLabels},
    ),
    "mkd": Method(
        title="MKD",
        definition="L = Logit KD's + w |A h + a - e|^2; the map A is dropped after training; the head reads h",
        source=(
            "ELLM, Zhao et al., arXiv 2411.13045: distils score distribution and chain of thought. Our reading: the "
            "votes are the distribution, the rationale's vector is the chain of thought"
        ),
        losses={"class_loss": HardLabels, "soft_label_loss": SoftLabels, "rationale_loss": RationaleProjection},
    ),
    "ced_kd": Method(
        title="CED-KD",
        definition="L = L_cls + w |A h + a - e|^2; the map A is dropped after training; the head reads h",
        source=f"a baseline of {_LRKD}, which does not define it; the definition is our reading of its name",
        losses={"class_loss": ClassLoss, "rationale_loss": RationaleProjection},
    ),
    "crsd": Method(
        title="CRSD",
        definition=(
            "L = L_cls + L_cls(h') + w InfoNCE(h, h'); h': h of the same encoder that also reads the rationale "
            "behind the product; positives on the diagonal of the batch; the head reads h"
        ),
        source=(
            "Xia et al., arXiv 2510.11056: contrastive reasoning self-distillation. Our reading: cosine, one way (h "
            "looks for its h'), gradients through both views"
        ),
        losses={"class_loss": ClassLoss, "augmented_class_loss": AugmentedClassLoss, "contrast_loss": Contrast},
    ),
    "lrkd": Method(
        title="LRKD",
        definition="L = L_cls + lambda L_guide(r, e); the head reads [h ; r]",
        source=_LRKD,
        losses={"class_loss": ClassLoss, "guide_loss": Guide, "orthogonality": Orthogonality},
        extractor=True,
    ),
    "lrkd_no_guide": Method(
        title="LRKD without guide",
        definition="L = L_cls; the head reads [h ; r]: the extractor's parameters without the reasoning",
        source=f"an ablation of {_LRKD}",
        losses={"class_loss": ClassLoss},
        extractor=True,
    ),
    "cls_guided": Method(
        title="[CLS] guided",
        definition=(
            "L = L_cls + lambda L_guide(h, e); no extractor, h does both jobs; where h is not as wide as e, by a "
            "linear map that is dropped after training; the head reads h"
        ),
        source=f"the ablation 'representation overload' of {_LRKD}",
        losses={"class_loss": ClassLoss, "guide_loss": ClsGuide},
    ),
    "lrkd_dropped": Method(
        title="LRKD, extractor dropped",
        definition="L = L_cls + lambda L_guide(r, e); the head reads h; the extractor is dropped after training",
        source=f"an ablation of {_LRKD}: the guide as an auxiliary task only",
        losses={"class_loss": ClassLoss, "guide_loss": Guide, "orthogonality": Orthogonality},
        extractor=True,
        head_reads_latents=False,
    ),
}


def get_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]
