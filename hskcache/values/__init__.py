"""Rows of a cache decoded: as numpy, Arrow, pandas, a data set of ``datasets``, or a Zarr group.

All are made of the same columns (``columns``), a block of rows at a time; torch, which decodes, is loaded then.
"""

from hskcache.values.values import DecodedRows

__all__ = ["DecodedRows"]
