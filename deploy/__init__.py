"""Files for clusters: an image, Kubernetes templates and a Ray configuration; hardware only.

A package so that installed copies carry the templates; no code. `jobs.cli.manifests` fills them.
"""
