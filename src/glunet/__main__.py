"""`python -m glunet` is the command `glunet`."""

from glunet.cli import main

if __name__ == "__main__":
    main()
