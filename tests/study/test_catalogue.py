from __future__ import annotations

from pathlib import Path

import pytest

from manylens.errors import UnknownNameError
from manylens.student.extractors import EXTRACTORS
from manylens.student.losses import GUIDE_LOSSES
from manylens.student.methods import METHODS
from manylens.study import STUDIES
from manylens.study.catalogue import get_study
from manylens.study.job import jobs_of
from manylens.study.measures import MEASURES

ON_THE_DEMO_STORE = sorted(set(STUDIES) - {"world_map"})


def test_names() -> None:
    assert {study.name for study in STUDIES.values()} == set(STUDIES)
    assert {measure for study in STUDIES.values() for measure in study.measures} <= set(MEASURES)


@pytest.mark.parametrize("name", ON_THE_DEMO_STORE)
def test_every_arm_is_a_recipe_of_its_own(name: str) -> None:
    jobs = jobs_of(STUDIES[name], "demo", [], [1])
    for arm in STUDIES[name].arms:
        student = jobs[arm.name][0].config.student
        assert (student.method, student.baselines, student.seeds) == (arm.method, (), (1,))
        assert student.method in METHODS and student.extractor in EXTRACTORS and student.guide.loss in GUIDE_LOSSES
    trained = [arm for arm in STUDIES[name].arms if arm.inference == "as_trained"]
    # No two arms are the same student, or a comparison would be of a student with itself.
    assert len({jobs[arm.name][0].fingerprint for arm in trained}) >= len(trained) - 1


def test_studies_share_a_plain_bert_and_the_recipes_own_lrkd() -> None:
    of = {name: jobs_of(STUDIES[name], "demo", [], [1]) for name in ("ablations", "controls", "targets")}
    assert len({jobs["bert"][0].fingerprint for jobs in of.values()}) == 1
    assert of["ablations"]["lrkd"] == of["controls"]["lrkd"] == of["ablations"]["zeroed"]
    assert of["controls"]["lrkd"][0].upstream != of["controls"]["shuffled"][0].upstream
    assert len({job.judged for jobs in of.values() for (job,) in jobs.values()}) == 1


def test_the_map_compares_within_a_world() -> None:
    world_map = STUDIES["world_map"]
    for treatment, baseline in world_map.comparisons():
        ours, theirs = (world_map.arm(name).settings for name in (treatment, baseline))
        assert (ours["pairs"], ours["label_noise"]) == (theirs["pairs"], theirs["label_noise"])
        assert theirs.get("informativeness", ours["informativeness"]) == ours["informativeness"]
    assert len(world_map.comparisons()) == 4 * 2 * 3


def test_an_unknown_study_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown study 'metods'"):
        get_study("metods")
    with pytest.raises(UnknownNameError, match="a YAML file of your own"):
        get_study(str(tmp_path / "none.yaml"))
