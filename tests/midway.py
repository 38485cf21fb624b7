"""Work that comes no further than a number of images, to be stopped there.

    python midway.py COUNT COMMAND [arguments]

does so to a command of the plugin. However late the signal comes on a busy machine, there is work
left.
"""

from __future__ import annotations

import sys
import time

import fiftyone.core.utils as fou

from clipcleaner_plugin.__main__ import main


def wait_at(limit: int) -> None:
    """Lets no progress bar of this process get past a number."""
    update = fou.ProgressBar.update

    def update_and_wait(bar: fou.ProgressBar, *count: int) -> None:
        update(bar, *count)
        while bar.iteration >= limit:
            time.sleep(0.02)  # one long sleep may miss a signal that comes just before it

    fou.ProgressBar.update = update_and_wait


if __name__ == "__main__":
    wait_at(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
