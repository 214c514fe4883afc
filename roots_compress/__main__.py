"""The command line as a module: `python -m roots_compress`."""

from roots_compress.cli.app import main

if __name__ == "__main__":
    main()
