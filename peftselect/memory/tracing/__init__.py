"""Tracing the real training step on fake tensors: every storage's birth and death, without a GPU and without weights.

``log`` records, ``attention`` answers as CUDA's scaled dot-product attention would, ``policies`` answers what fake
tensors cannot know, ``building`` makes the model, ``step`` runs the training step, ``answer`` replays it through the
allocator, ``worker`` does all that in a process of its own.
"""
