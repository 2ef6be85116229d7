"""Studies: the same student trained over the points of a grid and over seeds, from one cache [MUD].

``intervals``, ``beside`` and ``aligned`` know no study and serve ``stark`` and ``comparison``, too. ``plan`` is what a
file asks for, ``points`` what that comes to, ``cells`` the runs of points and seeds in one folder, ``cost`` what these
will take, ``outcome`` what they gave, ``curves`` the picture of that, and ``run`` the whole.
"""
