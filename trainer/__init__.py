"""Train students: from a cache, or plainly on labels."""
