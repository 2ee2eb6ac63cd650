"""Views of photographs a second: ours by threads and by processes, against the usual DataLoader.

Begin with `data_rate`, which is `bench data`; `feed_rate` counts decoders, and `standard_input` is
the reference.
"""
