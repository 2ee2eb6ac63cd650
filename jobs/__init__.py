"""Where and when runs are trained: the command line, and everything that Ray runs.

Rooms, each of which imports only from those before it: `console` (the terminal), `grids` (what can
be asked for by name), `tracking` (all that speaks to MLflow), `execution` (all that speaks to Ray),
`requests` (what a user asked for, made exact), `planning` and `doctor` (before anything is billed),
`cli` (a module a command). `pipeline` knows nothing of it; no science lives here.

Begin with `jobs.cli.train`, and follow it through `jobs.execution.drive` and `launch` to `worker`,
which calls `pipeline.training.loop.train`.
"""
