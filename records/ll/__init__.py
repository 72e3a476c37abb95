"""Files of the loss-landscape code of Li et al. 2018 (github.com/tomgoldstein/loss-landscape).

It keeps directions, projected trajectories and surfaces in HDF5 files of their own. They are read
here as all HDF5 files are, with care (`records.hdf5`); surfaces and directions are written, too.
"""

from isoloss.records.ll.directions import read_direction
from isoloss.records.ll.kinds import described, kind_of
from isoloss.records.ll.projection import read_projection
from isoloss.records.ll.surface import direction_file, finished_points

__all__ = [
    "described",
    "direction_file",
    "finished_points",
    "kind_of",
    "read_direction",
    "read_projection",
]
