"""What lies in people's folders: which files are data, and what labels those without a class.

`source_files` decides what belongs to an operating system or a tool, and counts what is left out;
`parquet_layout` knows Hugging Face's files and columns; `validation_labels` has the two lists that
label ILSVRC-2012's validation images where they lie in one folder. `parquet_rows` and
`tar_archives` read files that may be anything, within bounds.
"""
