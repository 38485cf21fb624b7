"""Long runs of operators: progress, cancelling, delegation, calls from Python."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionRunState
from noisy_digits import make_samples
from operators_at_work import context, module, uri

import clipcleaner_plugin as cc
import clipcleaner_plugin.scoring
from clipcleaner_plugin.embeddings import dataset_store
from clipcleaner_plugin.models import model_identity

pytestmark = pytest.mark.usefixtures("plugin", "quiet")

N = 200
TINY = {"model": cc.TINY_CLIP, "pretrained": None}
PIXELS = {"label_field": "ground_truth", "key": "run", "embeddings": "pixels"}

Maker = Callable[..., fo.Dataset]


@pytest.fixture
def digits(dataset: Maker, tmp_path: Path) -> fo.Dataset:
    # Delegated operations find their dataset by its name in the database
    return dataset(make_samples(tmp_path, N), persistent=True)


@pytest.fixture
def service() -> Iterator[DelegatedOperationService]:
    service = DelegatedOperationService()
    yield service
    for operation in service.list_operations():
        service.delete_operation(operation.id)


def stored(digits: fo.Dataset) -> int:
    return len(dataset_store(digits, model_identity(**TINY)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for five minutes"
        time.sleep(0.005)


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "clipcleaner"]


def drain(steps: Iterator[Any], seen: list[Any]) -> Any:
    """Adds what a generator yields to a list, as it comes, and returns what it returns."""
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return stop.value


# --- immediate


@pytest.fixture
def seen(plugin: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put what the App is told in here: the work waits until each of its reports has arrived."""
    running, arrived = module("running"), list[Any]()
    monkeypatch.setattr(running, "_POLL", 0.01)
    report = running.Progress.report

    def report_and_wait(progress: Any, bar: Any) -> None:
        report(progress, bar)
        label = progress.label
        wait_until(
            lambda: (
                progress._cancelled() or (arrived and arrived[-1].body.params.get("label") == label)
            )
        )

    monkeypatch.setattr(running.Progress, "report", report_and_wait)
    return arrived


def test_progress_is_the_share_of_work_done(digits: fo.Dataset, seen: list[Any]) -> None:
    ctx = context(digits, {"model": cc.TINY_CLIP, "batch_size": 8})
    drain(foo.get_operator(uri("compute_embeddings")).execute(ctx), seen)
    sent = [(message.body.operator_uri, message.body.params) for message in seen]
    steps = [params for name, params in sent if name == "set_progress"]
    counted = [step for step in steps if "done" in step["label"]]
    assert len(counted) == N / 8
    for step in counted:
        done = int(step["label"].rpartition(" – ")[2].split()[0])
        assert step["progress"] == pytest.approx(done / N)
    shares = [step["progress"] for step in counted]
    assert shares == sorted(shares) and steps[-1] == {"label": "Done", "progress": 1}
    assert stored(digits) == N and not workers()


def test_a_closed_page_stops_the_work_and_keeps_what_was_computed(
    digits: fo.Dataset, seen: list[Any]
) -> None:
    ctx = context(digits, {"model": cc.TINY_CLIP, "batch_size": 8})
    steps = foo.get_operator(uri("compute_embeddings")).execute(ctx)
    while not seen or seen[-1].body.params.get("progress") == 0:
        seen.append(next(steps))
    steps.close()
    wait_until(lambda: not workers())
    kept = stored(digits)
    assert 0 < kept < N
    report = cc.compute_embeddings(digits, **TINY, progress=False)
    assert report.reused == kept and report.computed == N - kept


def test_a_page_closed_while_a_run_scores_leaves_no_run(
    digits: fo.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring reports nothing, so that the run learns of it only when it is about to write."""
    scoring, closed = threading.Event(), threading.Event()
    real = clipcleaner_plugin.scoring.score_labels

    def slow(*args: Any, **options: Any) -> Any:
        scoring.set()
        assert closed.wait(60)
        return real(*args, **options)

    monkeypatch.setattr(clipcleaner_plugin.scoring, "score_labels", slow)
    ctx = context(digits, {**PIXELS, "use_names": False})
    steps = foo.get_operator(uri("apply_clipcleaner")).execute(ctx)
    next(steps)
    assert scoring.wait(60)
    steps.close()
    closed.set()
    wait_until(lambda: not workers())
    assert cc.list_runs(digits) == [] and not digits.has_sample_field("run_verdict")


def test_silent_work_still_sends_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only while it sends does the server notice that the page is gone."""
    running = module("running")
    monkeypatch.setattr(running, "_HEARTBEAT", 0.01)
    released = threading.Event()
    steps = running.stream(_app(), lambda report: released.wait(300))
    assert next(steps) == next(steps) == {"label": "Starting", "progress": 0.0}
    released.set()
    assert drain(steps, []) is True


def test_stages_come_from_the_log_of_the_same_thread() -> None:
    running = module("running")
    log = logging.getLogger("clipcleaner_plugin.somewhere")
    level = logging.getLogger("clipcleaner_plugin").level
    sent: list[dict[str, Any]] = []

    def arrives(label: str, progress: float) -> None:
        wait_until(lambda: {"label": label, "progress": progress} in sent)

    def work(report: Callable[[Any], None]) -> str:
        log.info("Scoring %d labels", 7)
        other = threading.Thread(target=log.info, args=("Another run",))
        other.start()
        other.join()
        log.warning("Two classes look alike")
        arrives("Scoring 7 labels", 0.0)
        with fou.ProgressBar(total=4, progress=report) as bar:
            bar.update(1)
            arrives("Scoring 7 labels – 1 done", 0.25)
        return "result"

    assert drain(running.stream(_app(), work), sent) == "result"
    assert not any("Another" in step["label"] or "alike" in step["label"] for step in sent)
    assert logging.getLogger("clipcleaner_plugin").level == level
    assert not logging.getLogger("clipcleaner_plugin").handlers


def test_runs_at_the_same_time_hear_their_own_log_to_the_end() -> None:
    """The first one to end must not turn the log off for the other."""
    running = module("running")
    library = logging.getLogger("clipcleaner_plugin")
    level = library.level
    first, second = running.Progress(lambda: False), running.Progress(lambda: False)
    outer, inner = running._stages(first), running._stages(second)
    with outer:
        inner.__enter__()
    logging.getLogger("clipcleaner_plugin.somewhere").info("Scoring")
    assert second.label == "Scoring" and first.label == "Starting"
    inner.__exit__(None, None, None)
    assert library.level == level and not library.handlers


def test_a_failure_is_said_in_the_app_and_raised_again(digits: fo.Dataset) -> None:
    ctx = context(digits, {**PIXELS, "class_prompts": "/no/such.yaml"})
    sent = []
    with pytest.raises(ValueError, match=r"/no/such\.yaml"):
        for message in foo.get_operator(uri("apply_clipcleaner")).execute(ctx):
            sent.append((message.body.operator_uri, message.body.params))
    (shown, progress), (notified, notice) = sent[-2:]
    assert (shown, notified) == ("set_progress", "notify")
    assert progress["progress"] == 1 and notice["variant"] == "error"
    assert progress["label"] == notice["message"]
    assert notice["message"].startswith("CLIPCleaner failed: class_prompts")


def _app() -> Any:
    """A context whose messages are their parameters."""
    return SimpleNamespace(ops=SimpleNamespace(set_progress=lambda **params: params))


# --- delegated


def test_a_delegated_run_finds_the_same_and_records_its_progress(
    digits: fo.Dataset, service: DelegatedOperationService
) -> None:
    operator = foo.get_operator(uri("apply_clipcleaner"))
    cc.apply_clipcleaner(digits, key="direct", **TINY, progress=False)
    operator(digits, key="queued", model=cc.TINY_CLIP, delegate=True)
    (queued,) = service.list_operations()
    assert queued.label == "CLIPCleaner on ground_truth with tiny-clip-digits"
    service.execute_queued_operations()
    (done,) = service.list_operations()
    assert done.run_state == ExecutionRunState.COMPLETED, done.result.error
    digits.reload()
    for name in ("score", "verdict"):
        assert digits.values(f"queued_{name}") == digits.values(f"direct_{name}")
    counts = cc.load_results(digits, "queued").counts()
    assert done.result.result["counts"] == counts
    assert f"{counts['mislabeled']} of {N}" in done.result.result["headline"]
    assert done.status.label.startswith("Done")


def test_delegated_embeddings_of_a_view(
    digits: fo.Dataset, service: DelegatedOperationService
) -> None:
    operator = foo.get_operator(uri("compute_embeddings"))
    operator(digits[:30], **TINY, embeddings_field="vectors", delegate=True)
    service.execute_queued_operations()
    (done,) = service.list_operations()
    assert done.run_state == ExecutionRunState.COMPLETED, done.result.error
    assert done.result.result == {"computed": 30, "reused": 0, "failed": 0}
    digits.reload()
    assert digits.count("vectors") == 30


def test_text_features_reach_a_delegated_run(
    digits: fo.Dataset, service: DelegatedOperationService
) -> None:
    dim = len(digits.first()["pixels"])
    texts = np.random.default_rng(0).normal(size=(10, dim)).tolist()
    options = {"embeddings": "pixels", "text_features": texts}
    cc.apply_clipcleaner(digits, key="direct", **options)
    foo.get_operator(uri("apply_clipcleaner"))(digits, key="queued", **options, delegate=True)
    service.execute_queued_operations()
    (done,) = service.list_operations()
    assert done.run_state == ExecutionRunState.COMPLETED, done.result.error
    digits.reload()
    assert digits.values("queued_score") == digits.values("direct_score")
    assert cc.get_run_info(digits, "queued")["parameters"]["text_source"] == "given"


def test_a_delegated_failure_is_recorded_in_words(
    digits: fo.Dataset, service: DelegatedOperationService
) -> None:
    operator = foo.get_operator(uri("apply_clipcleaner"))
    operator(digits, embeddings="nowhere", delegate=True)
    service.execute_queued_operations()
    (done,) = service.list_operations()
    assert done.run_state == ExecutionRunState.FAILED
    assert "'nowhere' is neither a field" in done.result.error


def test_marking_a_delegated_run_as_failed_stops_it(
    digits: fo.Dataset, service: DelegatedOperationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = module("running")
    monkeypatch.setattr(running, "_DELEGATED_INTERVAL", 0)
    foo.get_operator(uri("compute_embeddings"))(digits, **TINY, delegate=True)
    (operation,) = service.list_operations()
    ctx = context(digits, {}, delegated=True, run_doc=operation.id)
    done = []

    def work(report: Callable[[Any], None]) -> None:
        with fou.ProgressBar(total=10, progress=report) as bar:
            for step in bar(range(10)):
                done.append(step)
                if step == 3:
                    service.set_failed(operation.id)

    with pytest.raises(RuntimeError, match=r"Cancelled; what was computed so far is kept"):
        running.run_delegated(ctx, work)
    assert done[-1] in (3, 4)


# --- called from Python


def test_operators_can_be_called(digits: fo.Dataset) -> None:
    apply = foo.get_operator(uri("apply_clipcleaner"))
    results = apply(digits, "ground_truth", embeddings="pixels", model=None, key="run")
    assert results.counts() == cc.load_results(digits, "run").counts()
    apply(digits[:90], "ground_truth", embeddings="pixels", model=None, key="part")
    assert digits.count("part_verdict") == 90
    compute = foo.get_operator(uri("compute_embeddings"))
    assert compute(digits[:20], **TINY, progress=False).computed == 20
    info = foo.get_operator(uri("get_run_info"))(digits, "run")
    assert info["parameters"]["label_field"] == "ground_truth"
    foo.get_operator(uri("rename_run"))(digits, "run", "renamed")
    assert "renamed" in cc.list_runs(digits)


def test_a_call_that_cannot_be_queued_is_refused(
    digits: fo.Dataset, service: DelegatedOperationService
) -> None:
    apply = foo.get_operator(uri("apply_clipcleaner"))
    with pytest.raises(TypeError, match="embeddings is a ndarray"):
        apply(digits, embeddings=np.zeros((N, 4)), delegate=True)
    with pytest.raises(TypeError, match="thresold"):
        apply(digits, thresold=0.5, delegate=True)
    assert service.list_operations() == []


def test_what_python_calls_none_survives_the_queue(digits: fo.Dataset) -> None:
    options = module("options")
    params = options._params({"model": None, "embeddings": "pixels", "embeddings_field": None})
    assert options.embeddings_options(params) == {
        "embeddings": "pixels", "model": None, "pretrained": None,
    }  # fmt: skip
    assert options.embeddings_options(options._params({"embeddings_field": None})) == {
        "embeddings_field": None
    }


@pytest.mark.parametrize(
    ("model", "tag"),
    [
        ("ViT-B/32", "openai"), ("ViT-L-14", "openai"), ("tiny-clip-digits", None),
        ("hf-hub:org/name", None), ("./model", None), ("/models/clip.pt", None),
        ("local-dir:/models/clip", None),
    ],
)  # fmt: skip
def test_weights_are_asked_for_where_a_name_does_not_bring_them(
    digits: fo.Dataset, model: str, tag: str | None
) -> None:
    options = module("options").library_options(context(digits, {"model": model}))
    assert (options["model"], options["pretrained"]) == (model, tag)


def test_only_workers_decode_in_processes(digits: fo.Dataset) -> None:
    options = module("options")
    asked = {"num_workers": 4}
    assert options.library_options(context(digits, asked))["num_workers"] == 0
    queued = context(digits, asked, delegated=True)
    assert options.library_options(queued)["num_workers"] == 4
