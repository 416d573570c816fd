"""``python -m perijove``."""

from perijove.cli import main

if __name__ == "__main__":
    main()
