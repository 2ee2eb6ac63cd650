"""Images on their way into the network: batches to train on, and views to test on.

Begin with `feeds.py`, the one module that knows both kinds of dataset: `image_batches.py` holds
small images on the device, `device_batches.py` makes a run's batches of them there, and
`photo_batches.py` has photographs decoded ahead of training (`pipeline.data.decoders` does it).
`device_decoding.py` is the same on a GPU. `normaliser.py` makes their pixels what a network sees,
`central_views.py` has them decoded for tests. `views.py` says what either hands out for a test.
Which image comes when, and its random draws, are decided by `pipeline.data.sampling`, never here.

May import `step` and the torch-free rooms of `pipeline`, but not `measuring` or a module of
`pipeline.training` itself.
"""
