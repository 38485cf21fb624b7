"""The panel: a run in numbers and pictures, its samples a click away, and thresholds to try.

Nothing is kept between two events but what the user chose: every event asks for the statistics of
the run, which are kept until samples change. Handlers are idempotent, since the App calls some of
them twice, and some when the page is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from .panel_parts import (
    add_added,
    add_count,
    add_empty,
    add_plot,
    add_review,
    add_run_choice,
    add_summary,
    add_tabs,
    add_thresholds,
)
from .panel_runs import RunState, current_run, run_state
from .showing import show_samples
from .thresholds import THETAS
from .update_selection import reselect

if TYPE_CHECKING:
    from clipcleaner_plugin.results import CLIPCleanerResults
    from clipcleaner_plugin.statistics import RunStatistics

NAME = "clipcleaner"
_PLUGIN = "@clipcleaner/clipcleaner"
_HELP = """
Every bar and every cell can be clicked: the grid then shows what it counts. The review buttons are
about what is selected there, or else about all that it shows.

* **Scores**: how probable it is that a label is right, by verdict
* **Confusions**: which labels were given where others are suggested
* **Classes**: how many labels of a class look wrong, and whether its name means something to CLIP
* **Thresholds**: stricter or laxer verdicts, counted before they are applied

The numbers are of the whole run, whatever the grid shows. They follow every review. In runs of more
than 100,000 labels, where counting takes a while, the panel asks before it counts other changes.
"""


class CLIPCleanerPanel(foo.Panel):
    """Shows a run, loads its samples into the grid, and tries thresholds."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name=NAME,
            label="CLIPCleaner",
            icon="insights",
            category=foo.Categories.CURATE,
            help_markdown=_HELP,
        )

    def on_load(self, ctx: foo.executor.ExecutionContext) -> None:
        self._choose(ctx, current_run(ctx))

    def on_change_dataset(self, ctx: foo.executor.ExecutionContext) -> None:
        self._choose(ctx, current_run(ctx))

    def on_change_view(self, ctx: foo.executor.ExecutionContext) -> None:
        """Another view, or samples were changed and loaded again: the panel is drawn again.

        ``on_change_ctx`` would say more, and makes the App draw the panel without end.
        """

    def on_run(self, ctx: foo.executor.ExecutionContext) -> None:
        self._choose(ctx, current_run(ctx))

    def _choose(self, ctx: foo.executor.ExecutionContext, key: str | None) -> None:
        """Sets the state that a run begins with; sliders show what they are set to, not defaults.

        An input's default is never used: where it differs from the state, the App would take it
        for a change by the user.
        """
        ctx.panel.state.run = key
        if not ctx.panel.state.tab:
            ctx.panel.state.tab = "scores"
        state = run_state(ctx)
        if state.results is not None:
            ctx.panel.state.set(state.results.thetas._asdict())

    def on_show(self, ctx: foo.executor.ExecutionContext) -> None:
        """A button with a verdict was pressed."""
        self._show(ctx, kind=ctx.params["kind"])

    def on_score(self, ctx: foo.executor.ExecutionContext) -> None:
        """A bar of the histogram was clicked."""
        from clipcleaner_plugin.statistics import BINS

        place = int(ctx.params["idx"])
        scores = (place / BINS, (place + 1) / BINS)
        self._show(ctx, kind=ctx.params["trace"], scores=scores)

    def on_cell(self, ctx: foo.executor.ExecutionContext) -> None:
        """A cell of the heat map was clicked."""
        self._show(ctx, kind="mislabeled", given=ctx.params["y"], suggested=ctx.params["x"])

    def on_class(self, ctx: foo.executor.ExecutionContext) -> None:
        """A bar of a class was clicked: its mislabeled samples, what belongs to it, or all of it.

        The second bar is a share of what probably belongs to the class, where the run says that.
        """
        name, place = ctx.params["y"], ctx.params["trace_idx"]
        state = run_state(ctx)
        if place == 1 and state.results is not None and state.results.class_report():
            self._show(ctx, kind=None, suggested=name)
        else:
            self._show(ctx, kind="mislabeled" if place == 0 else None, given=name)

    def _show(self, ctx: foo.executor.ExecutionContext, kind: str | None, **choice: Any) -> None:
        show_samples(ctx, ctx.panel.state.run, kind, **choice)
        ctx.ops.open_panel("Samples")  # the grid may be hidden behind this panel

    def on_input(self, ctx: foo.executor.ExecutionContext) -> None:
        """A tab was chosen, a slider moved, or a review done: the panel is drawn again."""

    def on_apply(self, ctx: foo.executor.ExecutionContext) -> None:
        self._reselect(ctx, _chosen(ctx))

    def on_restore(self, ctx: foo.executor.ExecutionContext) -> None:
        self._reselect(ctx, ctx.params["thetas"])

    def on_reset(self, ctx: foo.executor.ExecutionContext) -> None:
        self._choose(ctx, ctx.panel.state.run)

    def _reselect(self, ctx: foo.executor.ExecutionContext, thetas: dict[str, float]) -> None:
        try:
            said = reselect(ctx.dataset, ctx.panel.state.run, thetas)["headline"]
        except ValueError as error:
            ctx.ops.notify(f"Nothing was changed: {error}", variant="error")
            return
        ctx.panel.state.set(thetas)
        ctx.ops.reload_dataset()
        ctx.ops.notify(said, variant="success")

    def on_review(self, ctx: foo.executor.ExecutionContext) -> None:
        """One of the review buttons was pressed: the operator's form says what it is about."""
        ctx.prompt(
            f"{_PLUGIN}/{ctx.params['action']}",
            params={"key": ctx.panel.state.run},
            on_success=self.on_input,
        )

    def on_count(self, ctx: foo.executor.ExecutionContext) -> None:
        """Numbers of before a change are to be counted again."""
        from clipcleaner_plugin.kept_statistics import count_again
        from clipcleaner_plugin.runs import load_results

        count_again(load_results(ctx.dataset, ctx.panel.state.run))

    def on_more_views(self, ctx: foo.executor.ExecutionContext) -> None:
        ctx.prompt(f"{_PLUGIN}/load_view", params={"key": ctx.panel.state.run})

    def on_start(self, ctx: foo.executor.ExecutionContext) -> None:
        """A first run was asked for, or a new one in place of one that is damaged."""
        key = ctx.panel.state.run
        ctx.prompt(
            f"{_PLUGIN}/apply_clipcleaner",
            params={"key": key, "again": key} if key else {},
            on_success=self.on_load,
        )

    def on_delete(self, ctx: foo.executor.ExecutionContext) -> None:
        params = {"key": ctx.panel.state.run}
        ctx.prompt(f"{_PLUGIN}/delete_run", params=params, on_success=self.on_load)

    def render(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        panel = types.Object()
        state = run_state(ctx)
        add_run_choice(panel, state, self.on_run)
        if state.results is None or state.statistics is None:
            add_empty(panel, state, self.on_start, self.on_delete)
        else:
            self._add_run(ctx, panel, state, state.results, state.statistics)
        return types.Property(panel, view=types.GridView(orientation="vertical", gap=1, pad=2))

    def _add_run(
        self,
        ctx: foo.executor.ExecutionContext,
        panel: types.Object,
        state: RunState,
        results: CLIPCleanerResults,
        statistics: RunStatistics,
    ) -> None:
        tab = ctx.panel.state.tab or "scores"
        add_summary(panel, results, statistics, self.on_show, self.on_more_views)
        if not state.current:
            add_count(panel, self.on_count)
        if state.added:
            add_added(panel, state.added, self.on_start)
        add_review(panel, self.on_review)
        add_tabs(panel, tab, statistics, self.on_input)
        if tab != "thresholds":
            clicks = {"scores": self.on_score, "confusions": self.on_cell, "classes": self.on_class}
            add_plot(panel, tab, results, statistics, clicks[tab])
            return
        handlers = {
            "change": self.on_input,
            "apply": self.on_apply,
            "reset": self.on_reset,
            "restore": self.on_restore,
        }
        counts = statistics.verdicts if state.current else results.counts()
        reviewed = statistics.decided > 0
        add_thresholds(panel, results, counts, reviewed, _chosen(ctx), handlers)


def _chosen(ctx: foo.executor.ExecutionContext) -> dict[str, float]:
    """Returns where the sliders stand."""
    return {name: ctx.panel.state.get(name) for name in THETAS}
