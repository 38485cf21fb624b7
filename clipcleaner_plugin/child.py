"""Runs a Python program that ends with the process that started it, however that ended.

Not imported: ``python child.py PROGRAM ARGUMENTS``, with a pipe as standard input. The pipe closes
when its other end dies, also by kill -9; a trainer that nobody waits for would otherwise go on, and
a second one in the same folder would meet it.
"""

import os
import runpy
import signal
import sys
import threading


def _end_with_parent() -> None:
    # Not sys.stdin: a thread that waits in it would trip the interpreter at its own exit
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Runs the program named by the first argument."""
    here = os.path.dirname(os.path.abspath(__file__))
    # The names in this folder must not hide those of other libraries
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    sys.argv.pop(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
