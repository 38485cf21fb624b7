"""The brain run: what FiftyOne stores, lists, renames and deletes under a run's key.

The two class names are part of every saved run (FiftyOne looks the method up as the config's
class name without ``Config``), so they and this module's path must never change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fiftyone as fo
import fiftyone.core.brain as fob

from . import fields, kept_statistics, views
from .embeddings import dataset_store
from .layout import layout_of

# What may name a vector field in a run's parameters
_VECTOR_FIELDS = ("embeddings_field", "embeddings_source", "visual_source")


class CLIPCleanerConfig(fob.BrainMethodConfig):
    """Parameters of one run. Every value is JSON; FiftyOne stores them with the dataset.

    Args:
        prefix: what the run's fields and saved views begin with (the key it was made under)
        label_field: the field whose labels were examined
        patches_field: the same, where these are the labels of objects; None = of samples
        alpha: how much the boxes of objects grew; None = not
        model: the CLIP, as the user named it; None for visual evidence only
        pretrained: the tag or file of its weights
        model_identity: architecture, weights and preprocessing in one string; None = unknown
        embeddings_field: the vector field that this run wrote; None = none
        owns_embeddings_field: whether the run made that field, so that it goes with the run
        embeddings_source: the field, similarity key or "array" given instead of computing them
        visual_source: the same of vectors that images were compared by instead; None = the same
        text_source: "model", "given" or "none"
        prompts_file: the file of prompts that the user named; None = none
        theta_gmm, theta_cons, temperature, folds, seed: as in
            :func:`clipcleaner_plugin.apply_clipcleaner`
        theta_score: score that a label needs to pass as not mislabeled
        former_thetas: the three thresholds before the last reselection; None = there was none
        review_sample: what ``start_review`` drew; None = nothing
        versions: ``{package: version}``
    """

    def __init__(
        self,
        prefix: str = "clipcleaner",
        label_field: str | None = None,
        patches_field: str | None = None,
        alpha: float | None = None,
        model: str | None = None,
        pretrained: str | None = None,
        model_identity: str | None = None,
        embeddings_field: str | None = None,
        owns_embeddings_field: bool = True,
        embeddings_source: str | None = None,
        visual_source: str | None = None,
        text_source: str = "model",
        prompts_file: str | None = None,
        theta_gmm: float = 0.5,
        theta_cons: float = 0.8,
        temperature: float = 0.07,
        folds: int = 5,
        seed: int = 51,
        theta_score: float = 0.5,
        former_thetas: dict[str, float] | None = None,
        review_sample: dict[str, Any] | None = None,
        versions: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prefix = prefix
        self.label_field = label_field
        self.patches_field = patches_field
        self.alpha = alpha
        self.model = model
        self.pretrained = pretrained
        self.model_identity = model_identity
        self.embeddings_field = embeddings_field
        self.owns_embeddings_field = owns_embeddings_field
        self.embeddings_source = embeddings_source
        self.visual_source = visual_source
        self.text_source = text_source
        self.prompts_file = prompts_file
        self.theta_gmm = theta_gmm
        self.theta_cons = theta_cons
        self.temperature = temperature
        self.folds = folds
        self.seed = seed
        self.theta_score = theta_score
        self.former_thetas = former_thetas
        self.review_sample = review_sample
        self.versions = versions

    def parameters(self) -> dict[str, Any]:
        """Returns how the run was made, as JSON values."""
        # The review sample is thousands of ids, and no parameter
        left_out = ("cls", "type", "review_sample")
        return {name: v for name, v in self.serialize().items() if name not in left_out}

    @property
    def type(self) -> str:
        return "clipcleaner"

    @property
    def method(self) -> str:
        return "clipcleaner"


class CLIPCleaner(fob.BrainMethod):
    """Life cycle of a run; FiftyOne's own list, rename and delete call these methods."""

    def get_fields(self, samples: fo.core.collections.SampleCollection, key: str) -> list[str]:
        layout = layout_of(self.config)
        # With a field of objects come their attributes
        written = [layout.lowest_score] if layout.objects else fields.result_fields(layout)
        if self.config.embeddings_field:
            written.append(self.config.embeddings_field)
        return [layout.label_field, *written]

    def cleanup(self, samples: fo.core.collections.SampleCollection, key: str) -> None:
        dataset = samples._root_dataset
        written = fields.result_fields(layout_of(self.config))
        fields.delete_fields(dataset, written + vector_fields_of(dataset, key, self.config))
        views.delete_views(dataset, self.config.prefix)
        kept_statistics.delete_kept(dataset, key)
        self._delete_store(dataset, key)

    def _delete_store(self, dataset: fo.Dataset, key: str) -> None:
        identity = self.config.model_identity
        if identity is None or self.config.embeddings_source is not None:
            return
        if not self.config.owns_embeddings_field:
            return  # the user had these embeddings before the run
        if dataset.list_brain_runs(method=self.config.method, model_identity=identity) == [key]:
            dataset_store(dataset, identity).delete()

    def rename(self, samples: fo.core.collections.SampleCollection, key: str, new_key: str) -> None:
        dataset, config = samples._root_dataset, self.config
        layout = layout_of(config)
        fields.rename_fields(dataset, layout, replace(layout, prefix=new_key))
        views.delete_views(dataset, config.prefix)
        if config.embeddings_field == embeddings_field_name(config.prefix):
            new_field = embeddings_field_name(new_key)
            if dataset.has_sample_field(config.embeddings_field):
                dataset.rename_sample_field(config.embeddings_field, new_field)
                self._tell_other_runs(dataset, key, config.embeddings_field, new_field)
            config.embeddings_field = new_field
        config.prefix = new_key
        views.save_views(dataset, config)
        kept_statistics.delete_kept(dataset, key)
        self._save_config(dataset, key, config)

    def _tell_other_runs(self, dataset: fo.Dataset, key: str, field: str, new_field: str) -> None:
        """Brings the records of the other runs that name a vector field up to date."""
        for other in dataset.list_brain_runs(method=self.config.method):
            config = dataset.get_brain_info(other).config
            named = [name for name in _VECTOR_FIELDS if getattr(config, name) == field]
            if other != key and named:
                for name in named:
                    setattr(config, name, new_field)
                self._save_config(dataset, other, config)

    def _save_config(self, dataset: fo.Dataset, key: str, config: CLIPCleanerConfig) -> None:
        self.update_run_config(dataset, key, config)
        cached = getattr(dataset, self._results_cache_field()).get(key)
        if cached is not None:
            cached._config = config


def vector_fields_of(dataset: fo.Dataset, key: str, config: CLIPCleanerConfig) -> list[str]:
    """Returns the vector field that goes with a run: none that others made or live on too."""
    field = config.embeddings_field
    if not field or not config.owns_embeddings_field:
        return []
    for other in dataset.list_brain_runs(method=config.method):
        used = dataset.get_brain_info(other).config
        if other != key and field in [getattr(used, name) for name in _VECTOR_FIELDS]:
            return []
    return [field]


def embeddings_field_name(prefix: str) -> str:
    """Returns the vector field that a run writes unless the user names another one."""
    return f"{prefix}_embedding"


def check_key_name(key: str) -> None:
    """Raises ValueError unless ``key`` can name a run and begin the names of its fields."""
    if not isinstance(key, str) or not key.isidentifier() or key.startswith("_"):
        raise ValueError(
            f"key {key!r} is not a valid name: letters, digits and '_', beginning with a letter"
        )
