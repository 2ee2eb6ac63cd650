"""`python -m jobs.cli`: the command line without its entry on the PATH."""

from jobs.cli.main import main

if __name__ == "__main__":
    main()
