"""Caches that go from machine to machine: to a URL and back, into one file, and how two of them differ.

Who looks for something, by floors; each uses those below it alone:

- commands: ``push``, ``pull``; ``pack`` (and unpack, a tar), ``hdf5`` (export and import); ``difference`` with
  ``matched``, ``values`` and ``advice``; ``mending`` with ``replica`` for repair;
- a cache that is read where it is: ``mirror``, through the ``bounded`` folder of what it has fetched;
- what commands have in common: ``selected`` (which part of a cache), ``parallel`` (threads, progress, memory),
  ``arrival`` (a cache that comes to stand in a folder), ``whole`` (what leaves beside the shards), ``card``, ``tar``;
- files at a URL: ``fetch`` (verified, resumed), over ``remote`` (by name below a URL), over ``systems`` (kinds of
  servers: ``objects``, ``folders``, http, ``sftp``), with ``retry`` (what is tried again, and what is told) and
  ``forks`` (what children leave alone).
"""
