"""Whether a cluster can do what it is about to be asked, before anything is billed.

Judges what nodes say of themselves; asking them is `jobs.execution.node_survey`'s. Imports
`jobs.requests` and what is below it. Begin with `examination`.
"""
