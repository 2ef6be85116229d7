"""Sparse teachers: which heads and neurons matter to the task and to a student, and the teacher without the others.

Needs the extra ``teacher``, except for ``levels``, which ranks with numpy alone, and ``request``.
"""
