"""The command line: a module a command, which parses, calls the rooms below and prints.

None imports another; `main` assembles them. What two commands need lives below: their options in
`jobs.requests.options` and `training_options`, the terminal in `jobs.console`. What loads numpy,
pandas, Ray, MLflow or torch is imported inside the commands that use it, so that `--help` and TAB
take a quarter of a second: a test holds it. Begin with `train`.
"""
