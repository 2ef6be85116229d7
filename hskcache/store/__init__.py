"""The files of a cache: shards, their commit records, the manifest. Knows arrays and bytes, and nothing of torch."""
