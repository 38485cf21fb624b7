"""The whole way from image files with the embedded CLIP: bad files, resuming, stored vectors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import clipcleaner_plugin as cc
from clipcleaner_plugin.digits import DIGIT_NAMES, load_half, render
from clipcleaner_plugin.embed import EmbeddingReport
from clipcleaner_plugin.embeddings import IDENTITY, dataset_store, fill_vector_field
from clipcleaner_plugin.images import ImageReadError
from clipcleaner_plugin.model_source import TINY_CLIP_FOLDER
from clipcleaner_plugin.models import model_identity

TINY = {"model": cc.TINY_CLIP, "pretrained": None}
N, WRONG = 120, 12

Maker = Callable[..., fo.Dataset]


def write_digits(folder: Path, n: int = N) -> tuple[list[Path], np.ndarray]:
    scans, labels, _ = load_half("held-out")
    paths = [folder / f"{i:04}.png" for i in range(n)]
    for path, scan in zip(paths, scans, strict=False):
        render(scan).save(path)
    return paths, labels[:n]


@pytest.fixture
def digits(dataset: Maker, tmp_path: Path) -> fo.Dataset:
    """120 digits, the first 12 with a wrong label."""
    paths, true = write_digits(tmp_path)
    given = true.copy()
    given[:WRONG] = (true[:WRONG] + 1) % 10
    return dataset(
        [
            fo.Sample(
                filepath=str(path),
                ground_truth=fo.Classification(label=DIGIT_NAMES[given[i]]),
                trusted=fo.Classification(label=DIGIT_NAMES[true[i]]),
            )
            for i, path in enumerate(paths)
        ]
    )


def stored(dataset: fo.Dataset) -> int:
    return len(dataset_store(dataset, model_identity(**TINY)))


def test_from_files_to_verdicts(digits: fo.Dataset) -> None:
    results = cc.apply_clipcleaner(digits, **TINY, progress=False)
    evaluation = results.evaluate("trusted")
    assert evaluation["precision"] > 0.8 and evaluation["recall"] > 0.8
    assert digits.count("clipcleaner_embedding") == N
    info = digits.get_field("clipcleaner_embedding").info
    assert info[IDENTITY] == model_identity(**TINY)
    parameters = cc.get_run_info(digits)["parameters"]
    assert parameters["model_identity"] == model_identity(**TINY)
    prompts = cc.load_results(digits).record["prompts"]
    assert len(prompts) == len(set(map(tuple, prompts))) == 10
    assert all("photo" in prompt for texts in prompts for prompt in texts)


def test_the_same_bits_twice_and_after_deleting_everything(digits: fo.Dataset) -> None:
    fields = ["clipcleaner_score", "clipcleaner_verdict", "clipcleaner_visual_loss"]
    cc.apply_clipcleaner(digits, **TINY, progress=False)
    first = digits.values(fields)
    vectors = np.stack(digits.values("clipcleaner_embedding"))
    cc.delete_run(digits, "clipcleaner")
    assert stored(digits) == 0
    assert not digits.has_sample_field("clipcleaner_embedding")
    cc.apply_clipcleaner(digits, **TINY, progress=False)
    assert digits.values(fields) == first
    np.testing.assert_array_equal(np.stack(digits.values("clipcleaner_embedding")), vectors)


def test_stored_vectors_serve_every_run_until_the_last_is_deleted(digits: fo.Dataset) -> None:
    report = cc.compute_embeddings(digits, **TINY, progress=False)
    assert (report.computed, report.reused) == (N, 0)
    cc.apply_clipcleaner(digits, key="a", embeddings_field=None, **TINY, progress=False)
    cc.apply_clipcleaner(digits, key="b", embeddings_field=None, **TINY, progress=False)
    assert not digits.get_field_schema(ftype=fo.VectorField)
    cc.delete_run(digits, "a")
    assert stored(digits) == N
    assert cc.compute_embeddings(digits, **TINY, progress=False).reused == N
    cc.delete_run(digits, "b")
    assert stored(digits) == 0


@pytest.mark.parametrize("as_source", [False, True])
def test_a_vector_field_stays_while_another_run_uses_it(
    digits: fo.Dataset, as_source: bool
) -> None:
    options = {**TINY, "progress": False}
    second = {"embeddings": "emb"} if as_source else {"embeddings_field": "emb"}
    cc.apply_clipcleaner(digits, key="a", embeddings_field="emb", **options)
    cc.apply_clipcleaner(digits, key="b", **second, **options)
    cc.apply_clipcleaner(digits, key="a", embeddings_field=None, **options)
    assert digits.count("emb") == N
    cc.apply_clipcleaner(digits, key="a", embeddings_field="emb", **options)
    cc.delete_run(digits, "a")
    assert digits.count("emb") == N
    cc.delete_run(digits, "b")
    assert digits.has_sample_field("emb") == as_source  # b wrote it, or only read it


def test_runs_follow_a_vector_field_that_is_renamed_with_its_run(digits: fo.Dataset) -> None:
    options = {**TINY, "progress": False}
    cc.apply_clipcleaner(digits, key="a", **options)
    cc.apply_clipcleaner(digits, key="b", embeddings="a_embedding", **options)
    cc.apply_clipcleaner(digits, key="c", visual_embeddings="a_embedding", **options)
    cc.rename_run(digits, "a", "first")
    for key, name in (("b", "embeddings_source"), ("c", "visual_source")):
        assert cc.get_run_info(digits, key)["parameters"][name] == "first_embedding"
    cc.delete_run(digits, "first")
    assert digits.count("first_embedding") == N, "others live on it"


def test_only_new_and_changed_files_are_computed(digits: fo.Dataset, tmp_path: Path) -> None:
    cc.compute_embeddings(digits, "emb", **TINY, progress=False)
    before = dict(zip(*digits.values(["id", "emb"]), strict=True))
    changed = digits.skip(3).first()
    Image.new("L", (40, 40), 255).save(changed.filepath)
    new = fo.Sample(filepath=str(tmp_path / "new.png"))
    Image.new("RGB", (40, 40), "red").save(new.filepath)
    digits.add_sample(new)
    report = cc.compute_embeddings(digits, "emb", **TINY, progress=False)
    assert set(report.computed_ids) == {changed.id, new.id}
    after = dict(zip(*digits.values(["id", "emb"]), strict=True))
    assert (after[changed.id] != before[changed.id]).any()
    assert after[new.id] is not None
    others = set(before) - {changed.id}
    assert all((after[i] == before[i]).all() for i in others)
    # A file that breaks loses its former vector: nothing may be concluded from it
    Path(changed.filepath).write_bytes(b"")
    report = cc.compute_embeddings(digits, "emb", **TINY, progress=False)
    assert set(report.failures) == {changed.id}
    assert digits[changed.id]["emb"] is None


def test_a_field_follows_what_other_calls_computed(digits: fo.Dataset) -> None:
    cc.apply_clipcleaner(digits, **TINY, progress=False)
    changed = digits.skip(3).first()
    before = changed["clipcleaner_embedding"]
    Image.new("L", (40, 40), 255).save(changed.filepath)
    cc.compute_embeddings(digits, **TINY, progress=False)  # into the store alone
    cc.apply_clipcleaner(digits, **TINY, progress=False)
    store = dataset_store(digits, model_identity(**TINY))
    ids = digits.values("id")
    vectors = np.stack(digits.values("clipcleaner_embedding"))
    np.testing.assert_array_equal(vectors, store.read(ids))
    assert (digits[changed.id]["clipcleaner_embedding"] != before).any()


def test_embeddings_that_the_user_made_outlive_the_run(digits: fo.Dataset) -> None:
    cc.compute_embeddings(digits, "mine", **TINY, progress=False)
    cc.apply_clipcleaner(digits, embeddings_field="mine", **TINY, progress=False)
    cc.apply_clipcleaner(digits, embeddings_field="mine", **TINY, progress=False)
    cc.delete_run(digits, "clipcleaner")
    assert digits.count("mine") == N == stored(digits)


def break_files(dataset: fo.Dataset) -> dict[str, str]:
    """Breaks four files, each in its own way; {sample id: kind}."""
    ids, paths = dataset.values(["id", "filepath"])
    Path(paths[20]).unlink()
    Path(paths[21]).write_bytes(b"")
    Image.effect_noise((64, 64), 50).save(paths[22], "JPEG")
    Path(paths[22]).write_bytes(Path(paths[22]).read_bytes()[:600])
    Path(paths[23]).write_text("not an image")
    return dict(zip(ids[20:24], ["missing", "empty", "truncated", "text"], strict=True))


def test_broken_files_cost_themselves_only(digits: fo.Dataset) -> None:
    broken = break_files(digits)
    results = cc.apply_clipcleaner(digits, **TINY, progress=False)
    unscorable = results.view("unscorable")
    assert set(unscorable.values("id")) == set(broken)
    assert set(results.record["failures"]) == set(broken)
    assert results.summary().unscorable == {"unreadable image": 4}
    assert results.counts()["unscorable"] == 4
    assert results.evaluate("trusted")["recall"] > 0.8
    assert digits.exists("clipcleaner_score").count() == N - 4


def test_skip_failures_false_names_sample_and_path(digits: fo.Dataset) -> None:
    broken = break_files(digits)
    with pytest.raises(ImageReadError) as error:
        cc.apply_clipcleaner(digits, **TINY, skip_failures=False, progress=False)
    assert any(i in str(error.value) for i in broken)
    assert "00" in str(error.value) and ".png" in str(error.value)
    assert cc.list_runs(digits) == []


def test_unusual_images_are_scored(digits: fo.Dataset) -> None:
    paths = digits.values("filepath")
    Image.new("L", (1, 1), 7).save(paths[0])
    Image.open(paths[1]).convert("CMYK").save(paths[1], "JPEG")
    deep = np.asarray(Image.open(paths[2]).convert("L"), dtype=np.uint16) * 257
    Image.fromarray(deep).save(paths[2])
    frames = [Image.open(paths[3]).convert("P"), Image.new("P", (32, 32))]
    frames[0].save(paths[3], "GIF", save_all=True, append_images=frames[1:])
    results = cc.apply_clipcleaner(digits, **TINY, progress=False)
    assert results.counts()["unscorable"] == 0
    assert digits.count("clipcleaner_embedding") == N


def test_all_files_missing_is_an_error(digits: fo.Dataset) -> None:
    for path in digits.values("filepath"):
        Path(path).unlink()
    with pytest.raises(ValueError, match="none of the 120 images could be read, for example"):
        cc.apply_clipcleaner(digits, **TINY, progress=False)


def test_a_field_with_vectors_of_another_model_is_refused(digits: fo.Dataset) -> None:
    digits.add_sample_field("emb", fo.VectorField, info={IDENTITY: "Other [000000000000]"})
    with pytest.raises(ValueError, match=r"'emb' holds vectors of Other \[000000000000\], not of"):
        cc.compute_embeddings(digits, "emb", **TINY, progress=False)
    with pytest.raises(ValueError, match="holds vectors of Other"):
        cc.apply_clipcleaner(digits, embeddings_field="emb", **TINY, progress=False)
    digits.add_sample_field("unknown", fo.VectorField)
    with pytest.raises(ValueError, match="holds vectors of an unknown model"):
        cc.compute_embeddings(digits, "unknown", **TINY, progress=False)
    with pytest.raises(ValueError, match="exists as a StringField"):
        cc.compute_embeddings(digits, "filepath", **TINY, progress=False)
    assert stored(digits) == 0  # refused before any work


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"theta_gmm": 2}, "theta_gmm"),
        ({"folds": 1}, "folds"),
        ({"embeddings_field": "_emb"}, "'_emb' is not a valid field name"),
        ({"embeddings_field": "clipcleaner_score"}, "field of this run's results"),
    ],
)
def test_options_are_checked_before_images_are_read(
    digits: fo.Dataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cc.apply_clipcleaner(digits, **TINY, **options, progress=False)
    assert stored(digits) == 0
    assert digits.list_brain_runs() == []


def test_classes_that_words_cannot_tell_apart_are_on_record(digits: fo.Dataset) -> None:
    names = {"names": {"three": "digit", "eight": "digit"}}
    cc.apply_clipcleaner(digits, class_prompts=names, **TINY, progress=False)
    warnings = cc.get_run_info(digits)["record"]["warnings"]
    (warning,) = [text for text in warnings if "the same prompts" in text]
    assert "'eight', 'three' have the same prompts" in warning


def test_a_checkpoint_may_be_a_path(digits: fo.Dataset) -> None:
    results = cc.apply_clipcleaner(digits, model=TINY_CLIP_FOLDER, pretrained=None, progress=False)
    assert results.config.model == str(TINY_CLIP_FOLDER)


def test_a_field_loses_what_cannot_be_read_however_much_that_is(digits: fo.Dataset) -> None:
    cc.compute_embeddings(digits, "emb", **TINY, progress=False)
    gone = digits.values("id")[:3]
    # as many as a lost disk takes from a large dataset
    failures = {f"{i:024x}": "no such file" for i in range(900_000)} | dict.fromkeys(gone, "")
    store = dataset_store(digits, model_identity(**TINY))
    fill_vector_field(digits, "emb", store, EmbeddingReport((), 0, failures))
    assert digits.exists("emb", False).values("id") == gone


def test_a_rerun_with_another_model_replaces_its_own_field(digits: fo.Dataset) -> None:
    cc.apply_clipcleaner(digits, **TINY, progress=False)
    before = np.stack(digits.values("clipcleaner_embedding"))
    # the same weights with other preprocessing are another model
    other = {"preprocess": {"mean": [0.3] * 3, "std": [0.3] * 3}}
    cc.apply_clipcleaner(digits, **TINY, **other, progress=False)
    after = np.stack(digits.values("clipcleaner_embedding"))
    assert not np.allclose(before, after)
    identity = digits.get_field("clipcleaner_embedding").info[IDENTITY]
    assert identity == model_identity(**TINY, **other) != model_identity(**TINY)


def test_a_rerun_on_its_own_vectors_keeps_them(digits: fo.Dataset) -> None:
    cc.apply_clipcleaner(digits, **TINY, progress=False)
    scores = digits.values("clipcleaner_score")
    cc.apply_clipcleaner(digits, embeddings="clipcleaner_embedding", **TINY, progress=False)
    assert digits.values("clipcleaner_score") == scores
    assert digits.count("clipcleaner_embedding") == N
    cc.delete_run(digits, "clipcleaner")
    assert not digits.has_sample_field("clipcleaner_embedding")


def test_a_sample_deleted_while_the_run_goes_on(digits: fo.Dataset) -> None:
    ids = digits.values("id")

    def delete_some(bar: Any) -> None:
        if len(digits) == N:
            digits.delete_samples([ids[0], ids[50], ids[-1]])

    results = cc.apply_clipcleaner(digits, **TINY, progress=delete_some, batch_size=16)
    assert len(digits) == N - 3 == digits.count("clipcleaner_score")
    assert sum(results.counts().values()) == N - 3


def test_an_error_in_the_progress_callable_loses_nothing(digits: fo.Dataset) -> None:
    class Stop(Exception):
        pass

    def stop(bar: Any) -> None:
        if bar.iteration >= 32:
            raise Stop

    with pytest.raises(Stop):
        cc.apply_clipcleaner(digits, **TINY, progress=stop, batch_size=16, num_workers=0)
    done = stored(digits)
    assert 32 <= done < N
    report = cc.compute_embeddings(digits, **TINY, progress=False)
    assert (report.computed, report.reused) == (N - done, done)


RUN = textwrap.dedent(
    """
    import sys, time
    import fiftyone as fo
    import clipcleaner_plugin as cc

    fo.config.show_progress_bars = False  # what they draw would share lines with the numbers

    def report(bar):
        print("embedded", bar.iteration, flush=True)
        while bar.iteration >= 48:  # however late the signal comes
            time.sleep(0.02)

    dataset = fo.load_dataset(sys.argv[1])
    cc.apply_clipcleaner(dataset, model=cc.TINY_CLIP, pretrained=None, batch_size=8,
                         num_workers=0, progress=report)
    """
)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes_where_it_stopped(digits: fo.Dataset, how: int) -> None:
    digits.persistent = True
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, digits.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ.copy(),
        cwd=Path(cc.__file__).parents[1],
    )
    assert process.stdout is not None
    reported = 0
    for line in process.stdout:
        if line.startswith("embedded"):
            reported = int(line.split()[1])
        if reported >= 24:
            process.send_signal(how)
            break
    assert process.wait() != 0
    digits.reload()
    assert cc.list_runs(digits) == []
    done = stored(digits)
    assert reported <= done < N
    report = cc.compute_embeddings(digits, **TINY, progress=False)
    assert (report.computed, report.reused) == (N - done, done)
    assert list(report.computed_ids) == digits.values("id")[done:]
