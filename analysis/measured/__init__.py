"""What was measured, as five checked frames: read from MLflow, kept as parquet, carried in bundles.

It imports nothing of `analysis`; `mlflow_export.py` is the one file that reads MLflow. No number is
computed here. Begin with `frames.py`: the schema, which everything else trusts.
"""
