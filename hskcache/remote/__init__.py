"""A cache at a URL, reached and read where it is.

By floors; each uses those below it alone:

- a cache that is read where it is: ``mirror``, through the ``bounded`` folder of what it fetched, and ``kept`` beside;
- ``fetch``: files of a cache and ``parts`` of them, verified and resumed;
- ``remote``: files by their names below a URL;
- ``systems``: kinds of servers (``objects``, ``folders``, http, ``sftp``).
"""
