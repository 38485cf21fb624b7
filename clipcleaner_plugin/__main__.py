"""The command line: ``python -m clipcleaner_plugin COMMAND``. Thin: the library does the work."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from . import __version__

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

    from .results import CLIPCleanerResults

logger = logging.getLogger(__name__)

INTERRUPTED = 130
_MEDIA: dict[str, bool | str] = {"copy": True, "symlink": "symlink", "reference": False}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv (None): the arguments; None = those of the process

    Returns:
        the exit status: 0; 1 = failed, the reason is on stderr; 130 = stopped by Ctrl-C
    """
    args = _parser().parse_args(argv)
    with _log_to_stderr(logging.DEBUG if args.verbose else logging.INFO):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        status: int = args.run(args)
        return status
    except KeyboardInterrupt:
        print(f"\nStopped. {args.after_interrupt}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except Exception as e:
        # Whatever went wrong, users get it in words; --verbose shows where
        logger.debug("Traceback:", exc_info=True)
        text = str(e).strip() or type(e).__name__
        kind = "" if isinstance(e, ValueError | TypeError | OSError | RuntimeError) else _kind(e)
        print(f"error: {kind}{text}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clipcleaner_plugin",
        description="CLIPCleaner for FiftyOne: finds wrong labels with a frozen CLIP.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="log details and tracebacks")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            parents=[common],
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        made.set_defaults(after_interrupt="")
        return made

    _add_install(command("install", "put the plugin where the FiftyOne App finds it"))
    _add_uninstall(command("uninstall", "take the plugin out of FiftyOne's plugins folder"))
    _add_doctor(command("doctor", "say what is wrong with this installation, and what to do"))
    _add_prune(command("prune", "list the embeddings stored here, and delete what is unused"))
    _add_embed(command("embed", "compute and keep the embeddings of a dataset"))
    _add_score(command("score", "find the wrong labels of a dataset"))
    _add_export(command("export", "export what a run has cleaned, to train on"))
    _add_predictions(command("predictions", "load the predictions of a trained network"))
    _add_demo(command("demo", "plant label errors in a dataset, find them, compare with the truth"))
    return parser


def _add_install(parser: argparse.ArgumentParser) -> None:
    _add_plugins_dir(parser)
    parser.add_argument("--copy", action="store_true", help="copy the files instead of linking")
    parser.set_defaults(run=_install)


def _add_uninstall(parser: argparse.ArgumentParser) -> None:
    _add_plugins_dir(parser)
    parser.set_defaults(run=_uninstall)


def _add_plugins_dir(parser: argparse.ArgumentParser) -> None:
    text = "the plugins folder; by default the one that FiftyOne searches"
    parser.add_argument("--plugins-dir", metavar="DIR", default=argparse.SUPPRESS, help=text)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    text = "also say whether this model's weights are on this machine"
    parser.add_argument("--model", default=argparse.SUPPRESS, help=text)
    parser.add_argument("--pretrained", default="openai", help="tag or file of its weights")
    parser.set_defaults(run=_doctor)


def _add_prune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--delete", action="store_true", help="delete those of datasets that are gone")
    text = "with --delete, also those that no run or field of their dataset was made with"
    add("--unused", action="store_true", help=text)
    parser.set_defaults(run=_prune)


def _add_embed(parser: argparse.ArgumentParser) -> None:
    _add_collection(parser)
    _add_model(parser)
    text = "also write the vectors to this field of the samples"
    parser.add_argument("--embeddings-field", metavar="F", default=argparse.SUPPRESS, help=text)
    text = "instead of whole images, embed the objects of this Detections field"
    parser.add_argument("--patches-field", metavar="F", help=text)
    _add_alpha(parser)
    parser.set_defaults(run=_embed)


def _add_alpha(parser: argparse.ArgumentParser) -> None:
    text = "how much the boxes of objects grow before they are cut out: 0.1 = 10 %%"
    parser.add_argument("--alpha", type=float, help=text)


def _add_score(parser: argparse.ArgumentParser) -> None:
    _add_collection(parser)
    parser.add_argument("--label-field", default="ground_truth", help="the labels to examine")
    _add_alpha(parser)
    parser.add_argument("--key", default="clipcleaner", help="names the run and its fields")
    _add_model(parser)
    parser.add_argument("--theta-gmm", type=float, default=0.5, help="threshold of the loss scores")
    text = "threshold of the consistency scores"
    parser.add_argument("--theta-cons", type=float, default=0.8, help=text)
    parser.set_defaults(run=_score)


def _add_export(parser: argparse.ArgumentParser) -> None:
    from .export import FORMATS, LABELS
    from .splits import MODES

    _add_collection(parser)
    add = parser.add_argument
    add("out", help="the folder to write; with --format dataset, the new dataset's name")
    add("--key", default="clipcleaner", help="the run")
    add("--format", choices=FORMATS, default="bundle", help="what to write")
    add("--labels", choices=LABELS, default="given", help="which labels; a bundle holds both")
    text = "confidence that a suggestion must have to become the label"
    add("--min-confidence", type=float, default=0.8, metavar="P", help=text)
    text = "by the tags train, val and test where there are some; or drawn for all; or none"
    add("--split", choices=MODES, default="tags", help=text)
    text = "a field with labels known to be right, which the trainer measures by"
    add("--trusted-field", metavar="F", default=argparse.SUPPRESS, help=text)
    add("--media", choices=tuple(_MEDIA), default="copy", help="what becomes of the images")
    add("--seed", type=int, default=51, help="of the draw of splits")
    add("--overwrite", action="store_true", help="replace an earlier export")
    parser.set_defaults(run=_export)


def _add_predictions(parser: argparse.ArgumentParser) -> None:
    from .predictions import DEFAULT_FIELD

    parser.add_argument("dataset", help="the name of the FiftyOne dataset that was exported")
    parser.add_argument("run_dir", help="the output folder of the trainer")
    parser.add_argument("--field", default=DEFAULT_FIELD, help="the field to write")
    text = "the Detections field whose objects were exported"
    parser.add_argument("--patches-field", metavar="F", help=text)
    parser.set_defaults(run=_predictions)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    from . import demo

    demo.add_arguments(parser)
    parser.set_defaults(run=demo.run)


def _add_collection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="the name of a FiftyOne dataset")
    text = "a saved view of it; by default the whole dataset"
    parser.add_argument("--view", metavar="NAME", default=argparse.SUPPRESS, help=text)
    parser.set_defaults(after_interrupt="Run the same command again: it resumes where it stopped.")


def _add_model(parser: argparse.ArgumentParser) -> None:
    text = "an open_clip model, hf-hub:org/name, or a local checkpoint"
    parser.add_argument("--model", default="ViT-B-32", help=text)
    parser.add_argument("--pretrained", default="openai", help="tag or file of its weights")
    text = "images per forward pass; by default as the device allows"
    parser.add_argument("--batch-size", type=int, metavar="N", default=argparse.SUPPRESS, help=text)
    text = "decoding processes; by default as the machine allows"
    parser.add_argument(
        "--num-workers", type=int, metavar="N", default=argparse.SUPPRESS, help=text
    )
    text = "cuda, cuda:1, mps or cpu; by default the best at hand"
    parser.add_argument("--device", default=argparse.SUPPRESS, help=text)


def _install(args: argparse.Namespace) -> int:
    from .install import PLUGIN_NAME, install, load_in_fresh_process, plugins_dir

    folder = getattr(args, "plugins_dir", None)
    target = install(folder, copy=args.copy)
    loaded = load_in_fresh_process(folder)
    if not loaded.ok:
        what = "\n".join(loaded.errors) or f"not registered: {', '.join(loaded.missing)}"
        if loaded.path is None and not loaded.errors:
            what = f"FiftyOne does not list it; try: fiftyone plugins enable {PLUGIN_NAME}"
        print(f"error: The plugin is at {target}, but does not load: {what}", file=sys.stderr)
        return 1
    names = ", ".join(loaded.operators)
    print(f"Installed version {loaded.version} at {target}. FiftyOne loads it: {names}")
    if folder is not None and plugins_dir().resolve() != target.parent.parent.resolve():
        print(f"FiftyOne searches {plugins_dir()}: set FIFTYONE_PLUGINS_DIR={folder} to use it")
    return 0


def _uninstall(args: argparse.Namespace) -> int:
    from .install import plugins_dir, uninstall

    folder = getattr(args, "plugins_dir", None)
    removed = uninstall(folder)
    for path in removed:
        print(f"Removed {path}")
    if not removed:
        print(f"The plugin is not in {folder or plugins_dir()}: nothing to remove")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import examine

    failed = 0
    for check in examine(getattr(args, "model", None), args.pretrained):
        print(check, flush=True)
        failed += check.status == "FAIL"
    if failed:
        print(f"{failed} to mend", file=sys.stderr)
    return 1 if failed else 0


def _prune(args: argparse.Namespace) -> int:
    from .stores import Use, list_stores, prune

    stores = list_stores()
    uses: list[Use] = ["orphan", "unused"] if args.unused else ["orphan"]
    deleted = prune(stores, uses) if args.delete else []
    for info in stores:
        print(f"{info}{', deleted' if info in deleted else ''}")
    if not args.delete and any(info.use != "used" for info in stores):
        print("orphan: its dataset is not in this database; --delete removes it, unless it is of")
        print("another database that keeps its embeddings here too: then leave it")
    return 0


def _embed(args: argparse.Namespace) -> int:
    from .embeddings import compute_embeddings
    from .ranks import follow, joined

    with joined() as ranks:
        if ranks is not None and ranks.rank > 0:
            logging.getLogger(__package__).setLevel(logging.WARNING)
            follow(ranks)
            return 0
        report = compute_embeddings(
            _collection(args),
            embeddings_field=getattr(args, "embeddings_field", None),
            model=args.model,
            pretrained=args.pretrained,
            batch_size=getattr(args, "batch_size", None),
            num_workers=getattr(args, "num_workers", None),
            device=getattr(args, "device", None),
            ranks=ranks,
            patches_field=args.patches_field,
            alpha=args.alpha,
        )
    failures = list(report.failures.items())
    print(f"{report.computed} computed, {report.reused} reused, {len(failures)} unreadable")
    for sample_id, reason in failures[:10]:
        print(f"  {sample_id}: {reason}")
    if len(failures) > 10:
        print(f"  and {len(failures) - 10} more")
    return 0


def _score(args: argparse.Namespace) -> int:
    from .ranks import joined
    from .score import help_out, work_shared

    with joined() as ranks:
        if ranks is not None and ranks.rank > 0:
            logging.getLogger(__package__).setLevel(logging.WARNING)
            help_out(ranks)
            return 0
        with contextlib.nullcontext() if ranks is None else work_shared(ranks):
            results = _results(args)
    print(results.summary())
    view = f"{args.key}: mislabeled"
    print(f"To review them: fiftyone app launch {args.dataset}, and load the saved view '{view}'")
    return 0


def _results(args: argparse.Namespace) -> CLIPCleanerResults:
    from .apply import apply_clipcleaner

    return apply_clipcleaner(
        _collection(args),
        label_field=args.label_field,
        alpha=args.alpha,
        key=args.key,
        model=args.model,
        pretrained=args.pretrained,
        theta_gmm=args.theta_gmm,
        theta_cons=args.theta_cons,
        batch_size=getattr(args, "batch_size", None),
        num_workers=getattr(args, "num_workers", None),
        device=getattr(args, "device", None),
    )


def _export(args: argparse.Namespace) -> int:
    from .export import export_cleaned

    new_dataset = args.format == "dataset"
    report = export_cleaned(
        _collection(args),
        args.key,
        None if new_dataset else args.out,
        format=args.format,
        dataset_name=args.out if new_dataset else None,
        labels=args.labels,
        min_confidence=args.min_confidence,
        split=args.split,
        trusted_field=getattr(args, "trusted_field", None),
        export_media=_MEDIA[args.media],
        overwrite=args.overwrite,
        seed=args.seed,
    )
    print(report)
    return 0


def _predictions(args: argparse.Namespace) -> int:
    from .predictions import load_predictions

    print(load_predictions(_collection(args), args.run_dir, args.field, args.patches_field))
    return 0


def _collection(args: argparse.Namespace) -> SampleCollection:
    import fiftyone as fo

    names = fo.list_datasets()
    if args.dataset not in names:
        close = difflib.get_close_matches(args.dataset, names, n=3) or names[:10]
        have = f"there are: {', '.join(close)}" if close else "the database is empty"
        raise ValueError(f"No dataset is named {args.dataset!r}; {have}")
    dataset = fo.load_dataset(args.dataset)
    view = getattr(args, "view", None)
    if view is None:
        return dataset
    if view not in dataset.list_saved_views():
        have = ", ".join(map(repr, dataset.list_saved_views())) or "none"
        raise ValueError(f"Dataset {args.dataset!r} has no saved view {view!r}; it has: {have}")
    return dataset.load_saved_view(view)


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: "


@contextlib.contextmanager
def _log_to_stderr(level: int) -> Iterator[None]:
    """Shows the library's log, plain, while a command runs."""
    log = logging.getLogger("clipcleaner_plugin")
    before = log.level, log.propagate
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(level)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


if __name__ == "__main__":
    sys.exit(main())
