"""A cache that is built in a depot: shards committed by conditional puts, under claims that only save work.

- ``ledger``: what stands there, and its shards; the first record of a shard that is put counts;
- ``finishing``: the manifest, and the end of what led to it;
- ``claims``: who is at which shard;
- ``begun``: the request and the manifest, as they are read there.
"""
