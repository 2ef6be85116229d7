"""A cache as one HDF5 file, which needs neither hskcache nor a plug-in to be read, and back again.

Rows of all shards stand one after the other, so that row 7 is row 7, whatever shard it came from. The manifest goes
along as it is; with it an import cuts the rows into the same shards again, which have the same bytes and so the same
cache id.
"""

from hskcache.move.hdf5.export import COMPRESSIONS, Compression, export_hdf5
from hskcache.move.hdf5.import_ import Imported, import_hdf5

__all__ = ["COMPRESSIONS", "Compression", "Imported", "export_hdf5", "import_hdf5"]
