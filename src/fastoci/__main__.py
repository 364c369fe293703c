"""``python -m fastoci`` is the program ``fastoci``."""

from fastoci.cli.main import main

if __name__ == "__main__":
    main()
