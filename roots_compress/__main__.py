"""The command line: the console script, and `python -m roots_compress`."""

import gc
import signal


def main() -> None:
    """Run the command line.

    All that start-up makes is kept, so the collector would search it again and again and find nothing:
    `--help` takes a seventh less time without it. It runs again once a verb does.
    """
    gc.disable()
    # Until the command line handles signals, Ctrl-C ends the program without a traceback of its imports.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from roots_compress.cli import app

    app.main()


if __name__ == "__main__":
    main()
