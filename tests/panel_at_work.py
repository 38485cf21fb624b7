"""Sends events to the panel as the App does, without a browser."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from operators_at_work import requests, uri


class Panel:
    """The state of a panel, between the events that the App sends."""

    def __init__(self, dataset: fo.Dataset) -> None:
        self.dataset = dataset
        self.view: fo.DatasetView | None = None  # what the grid shows, where it is not all
        self.state: dict[str, Any] = {}
        self.parts: dict[str, Any] = {}

    def send(self, method: str, **params: Any) -> dict[str, dict[str, Any]]:
        """Sends an event; returns what the panel asks of the App: ``{operator: parameters}``."""
        sent = {"panel_id": "p", "__method__": method, "panel_state": self.state, **params}
        context = {"dataset": self.dataset} if self.view is None else {"view": self.view}
        result = foo.execute_operator(uri("clipcleaner"), context, params=sent)
        asked: dict[str, dict[str, Any]] = {}
        for name, found in requests(result):
            if name == "patch_panel_state":
                self.state.update(found["state"])
            elif name == "show_panel_output":
                self.parts = found["output"]["type"]["properties"]
            else:
                asked[name] = found
        self.dataset.reload()
        return asked

    def said(self, name: str) -> str:
        """Returns a text of the panel."""
        return str(self.parts[name]["default"])

    def open(self, tab: str) -> None:
        """Chooses a tab."""
        self.state["tab"] = tab
        self.send("on_input")

    def bars(self, tab: str) -> list[dict[str, Any]]:
        """Returns the traces of a tab's figure."""
        found: list[dict[str, Any]] = self.parts[f"plot_{tab}"]["view"]["data"]
        return found

    def buttons(self, row: str) -> dict[str, Any]:
        """Returns what the buttons of a row say, by name."""
        found = self.parts[row]["type"]["properties"]
        return {name: button["view"]["label"] for name, button in found.items()}


def shown(dataset: fo.Dataset, asked: dict[str, Any]) -> fo.DatasetView:
    """Returns the view that an event has loaded into the grid."""
    return fo.DatasetView._build(dataset, asked["set_view"]["view"])
