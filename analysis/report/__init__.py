"""Pages and files: whatever the other rooms made, rendered into one folder that can be audited.

The top room: it may import all of `analysis`, and nothing of `analysis` imports it. It computes no
statistic. Begin with `report.py` (what is written, and in which order), then `study_pages.py`.
"""
