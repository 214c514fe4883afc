"""The command line: the console script, and `python -m roots_compress`."""

import gc


def main() -> None:
    """Run the command line.

    All that start-up makes is kept, so the collector would search it again and again and find nothing:
    `--help` takes a seventh less time without it. It runs again once a verb does.
    """
    gc.disable()
    from roots_compress.cli import app

    app.main()


if __name__ == "__main__":
    main()
