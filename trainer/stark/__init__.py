"""Train a student from sparse teachers [StarK]: a trial, scores, levels of sparsity, and the level that teaches best.

One command does what ``hskcache build``, ``hsktrain fit`` and ``hskcache sparsify`` do one by one, in one folder. The
room needs a teacher, which no other part of the trainer does beside ``live``; it is out of memory while students train.
"""
