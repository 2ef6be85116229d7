"""Caches that go from machine to machine: to a URL and back, and into one file and out of it.

By floors; each uses those below it alone:

- commands: ``push``, ``pull``; ``pack`` (and unpack, a tar), ``hdf5`` (export and import);
- what they have in common: ``arrival`` (a cache that comes to stand in a folder), ``parallel`` (threads, progress,
  memory), ``selected`` (which part of a cache), ``whole`` (the one file of a cache), ``card``, ``commands``, ``tar``.
"""
