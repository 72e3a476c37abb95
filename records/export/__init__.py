"""Stored results in the formats of other programs; each is written as bytes, and atomically here.

vtk  surfaces for ParaView (`.vtp`)                     csv  tables
npz  all arrays under the names they have in HDF5       ll   the loss-landscape code's HDF5
npy  spectral densities as two arrays, as PyHessian's functions take them
"""

from isoloss.records.export.formats import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
