"""What a grid will take and cost before it is begun.

How much there is to compute (`workload`), how fast that goes (`rates`), what is placed where
(`placement`), and what a budget buys (`budget`); only the measuring is `jobs.execution.probe`'s.
Imports `jobs.requests` and what is below it. Begin with `measured_plan`.
"""
