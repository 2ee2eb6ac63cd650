"""The command line: a module a command, which parses, calls the rooms below and prints.

None imports another; `main` assembles them. What two commands need lives below: their options in
`jobs.requests.options`, the terminal in `jobs.console`. MLflow, pandas-heavy analysis and torch are
imported inside the commands that use them, so that `--help` and refusals stay quick. Begin with
`train`.
"""
