"""A depot: a place for files by names, of which an object store is the least that there may be.

By floors; each uses those below it alone:

- ``stores``, object stores through obstore, by the URLs that :func:`~hskcache.depot.stores.open_stores` knows;
- ``abc``, the six verbs that all else stands on, and ``unconditional``, a depot whose store keeps no conditions;
- ``retry``, what is tried again and what is told, and ``waiting``, words while a server is waited for.
"""
