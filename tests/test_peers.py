"""Other methods of the detection benchmark, against examples worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from feature_clusters import flip, make_clusters

from benchmarks import peers
from benchmarks.noise import lookalike_noise, partner_noise, projected_noise
from benchmarks.peers import Case
from benchmarks.settings import Task
from clipcleaner_plugin import LabelScores


def case_of(features: np.ndarray, given: np.ndarray, probs: Any, texts: Any = None) -> Case:
    """A case without scores of ours."""
    k = len(np.unique(given))
    task = Task(features.astype(np.float32), given, texts, k, np.zeros(len(given), bool))
    scores = LabelScores(**dict.fromkeys(LabelScores.__dataclass_fields__))
    return Case(task, scores, np.arange(k), given, np.asarray(probs, dtype=np.float64))


def circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_neighbours_vote() -> None:
    points = circle(0, 1, 2.1, 90, 91, 92.1)
    labels = np.array([0, 0, 1, 1, 1, 1])
    votes = peers.neighbour_votes(points, labels, 2, 2)
    assert votes.tolist() == [[1, 1], [1, 1], [2, 0], [0, 2], [0, 2], [0, 2]]


def test_neighbours_vote_alike_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_clusters(50)
    whole = peers.neighbour_votes(data.images, data.truth, 4, 10)
    monkeypatch.setattr(peers, "_BLOCK", 7)
    assert np.array_equal(peers.neighbour_votes(data.images, data.truth, 4, 10), whole)
    assert (whole.sum(axis=1) == 10).all()
    similar = data.images @ data.images.T
    for i in range(50):
        nearest = [j for j in np.argsort(-similar[i]) if j != i][:10]
        assert whole[i].tolist() == np.bincount(data.truth[nearest], minlength=4).tolist()


def test_the_vote_flags_a_label_that_another_beats() -> None:
    points = circle(*np.linspace(0, 5, 12), *np.linspace(90, 95, 12))
    labels = np.repeat([0, 1], 12)
    labels[5] = 1
    found = peers.neighbours(case_of(points, labels, np.full((24, 2), 0.5)))
    assert np.flatnonzero(found.flagged).tolist() == [5]
    assert found.score[5] == 0
    assert found.score[6] == 0.9
    assert found.score[20] == 1


def test_confidence_flags_less_than_an_even_chance() -> None:
    probs = [[0.6, 0.4], [0.4, 0.6], [0.5, 0.5]]
    found = peers.confidence(case_of(circle(0, 1, 2), np.array([0, 0, 1]), probs))
    assert found.flagged.tolist() == [False, True, False]
    assert found.score.tolist() == [0.6, 0.4, 0.5]


def test_the_plain_fused_rule_takes_the_root_of_both() -> None:
    data = make_clusters(200, 4)
    labels = flip(data.truth, 4, 0.2)
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    found = peers.plain_fused(case_of(data.images, labels, probs, data.texts))
    language = np.exp(100 * (data.images.astype(float) @ data.texts.T.astype(float)))
    joint = np.sqrt(language / language.sum(axis=1, keepdims=True) * probs)
    for i in range(200):
        others = [joint[i, k] for k in range(4) if k != labels[i]]
        assert found.score[i] == pytest.approx(np.log(joint[i, labels[i]] / max(others)), abs=1e-3)
    assert found.score[found.flagged].max() < found.score[~found.flagged].min()
    alone = peers.plain_fused(case_of(data.images, labels, probs))
    assert np.array_equal(alone.score, peers.margins_of(np.log(np.maximum(probs, 1e-6)), labels))


def test_the_paper_rule_flags_what_it_does_not_select() -> None:
    case = case_of(circle(0, 1, 2), np.array([0, 0, 1]), np.full((3, 2), 0.5))
    evidence = {
        "zeroshot_loss": np.array([0.9, 0.2, np.nan]),
        "visual_loss": np.array([0.5, 0.8, 0.7]),
        "margin": np.array([-9.0, -9.0, -9.0]),
    }
    case.scores.__dict__.update(selected=np.array([True, False, True]), evidence=evidence)
    found = peers.paper(case)
    assert found.flagged.tolist() == [False, True, False]
    assert found.score.tolist() == [0.5, 0.2, 0.7]


def test_out_of_fold_probabilities_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    data = make_clusters(120, 3)
    labels = flip(data.truth, 3, 0.2)
    probs = peers.out_of_fold(data.images, labels, 3)
    folds = peers.assign_folds(peers.row_hashes(data.images, peers.SEED), labels, peers.FOLDS)
    test = folds == 2
    model = LogisticRegression(C=10, tol=1e-8, max_iter=1000)
    model.fit(data.images[~test].astype(float), labels[~test])
    assert np.allclose(probs[test], model.predict_proba(data.images[test]), atol=1e-3)


def test_the_only_sample_of_a_class_has_no_chance() -> None:
    data = make_clusters(60, 3)
    labels = np.where(np.arange(60) == 0, 3, data.truth)
    probs = peers.out_of_fold(data.images, labels, 4)
    assert probs[0, 3] == 0
    assert np.allclose(probs.sum(axis=1), 1)


@pytest.mark.parametrize("method", [peers.cleanlab, peers.datalab])
def test_cleanlab_finds_easy_errors(method: Any) -> None:
    pytest.importorskip("cleanlab", reason="cleanlab is a dependency of development only")
    data = make_clusters(200, 4, spread=0.1)
    labels = flip(data.truth, 4, 0.1)
    probs = 0.1 + 0.6 * np.eye(4)[data.truth]
    found = method(case_of(data.images, labels, probs))
    wrong = labels != data.truth
    assert not (found.flagged & ~wrong).any()
    assert (found.flagged & wrong).sum() >= 0.8 * wrong.sum()
    assert found.score[wrong].max() < found.score[~wrong].min()


def test_datalab_asks_ten_neighbours() -> None:
    pytest.importorskip("cleanlab", reason="cleanlab is a dependency of development only")
    data = make_clusters(100, 3)
    labels = flip(data.truth, 3, 0.2)
    votes = peers.neighbour_votes(data.images, labels, 3, 10)
    found = peers.datalab(case_of(data.images, labels, np.full((100, 3), 1 / 3)))
    assert np.allclose(found.score, votes[np.arange(100), labels] / 10)


@pytest.mark.parametrize("draw", [projected_noise, lookalike_noise])
def test_noise_that_depends_on_the_image(draw: Any) -> None:
    data = make_clusters(400, 5, spread=0.3)

    def noisy(seed: int) -> np.ndarray:
        return draw(data.images, data.truth, 5, 0.3, seed)

    labels = noisy(1)
    wrong = labels != data.truth
    assert wrong.mean() == pytest.approx(0.3, abs=0.06)
    assert 0 <= labels.min() <= labels.max() < 5
    assert np.array_equal(noisy(1), labels)
    assert not np.array_equal(noisy(2), labels)


def test_lookalike_noise_hits_the_ambiguous() -> None:
    data = make_clusters(400, 5, spread=0.3)
    labels = lookalike_noise(data.images, data.truth, 5, 0.3, 0)
    wrong = labels != data.truth
    own = np.sum(data.images * data.texts[data.truth], axis=1)
    assert wrong.sum() == 120
    assert own[wrong].mean() < own[~wrong].mean()
    taken_for = np.sum(data.images * data.texts[labels], axis=1)[wrong]
    others = (data.images @ data.texts.T).mean(axis=1)[wrong]
    assert taken_for.mean() > others.mean()


def test_projected_noise_treats_equals_alike() -> None:
    data = make_clusters(400, 5, spread=0.3)
    rows, truth = np.repeat(data.images[:20], 30, axis=0), np.repeat(data.truth[:20], 30)
    labels = projected_noise(rows, truth, 5, 0.3, 0)
    spread = [len(set(labels[i : i + 30]) - {truth[i]}) for i in range(0, 600, 30)]
    assert np.mean(spread) < 3  # of four wrong classes, each image goes to few


def test_every_class_has_three_partners() -> None:
    truth = np.arange(2000) % 8
    labels = partner_noise(truth, 8, 0.4, 0)
    wrong = labels != truth
    assert wrong.sum() == 800
    assert {len(set(labels[wrong & (truth == k)])) for k in range(8)} == {3}
    assert np.array_equal(partner_noise(truth, 8, 0.4, 0), labels)
    two = partner_noise(truth % 3, 3, 0.4, 0)
    assert {len(set(two[(two != truth % 3) & (truth % 3 == k)])) for k in range(3)} == {2}
