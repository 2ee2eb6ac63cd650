"""Speed as ratios against named references: `resnet-repro bench`, a module a benchmark.

Stands beside `jobs` and imports it and `pipeline`, like a command; nothing but the command line
imports it. It may load torch, Ray and MLflow, as they are what is measured. Every benchmark
interleaves its contestants round by round, as a machine's speed drifts, and says how it was taken.
Begin with `commands`; `standard_loop` and `standard_input` are the references, written without this
project on purpose.
"""
